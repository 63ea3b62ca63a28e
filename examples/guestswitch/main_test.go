// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/lifecycle"
)

// TestMain is also the program itself, for tests that need it as a process.
func TestMain(m *testing.M) {
	if os.Getenv("GUESTSWITCH") == "run" {
		main()
	}
	goleak.VerifyTestMain(m)
}

func TestWrongCommandLines(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	servicetest.Mistakes(t, "guestswitch", run, map[string]servicetest.Mistake{
		"no host":         {nil, "-connect is missing"},
		"unknown scheme":  {[]string{"-connect", "tcp://1.2.3.4:5"}, "unix:PATH, vsock:CID:PORT or fd:NUMBER"},
		"no path":         {[]string{"-connect", "unix://"}, "write a path"},
		"relative URL":    {[]string{"-connect", "unix://p.sock"}, "write a path"},
		"no socket":       {[]string{"-connect", "unix:" + os.TempDir()}, "is no socket"},
		"no descriptor":   {[]string{"-connect", "fd:9999"}, "fd 9999 is no socket that this process inherits"},
		"no port":         {[]string{"-connect", "vsock:2"}, "write a CID and a port"},
		"no CID":          {[]string{"-connect", "vsock://:6656"}, "write a CID and a port"},
		"CID too large":   {[]string{"-connect", "vsock://4294967296:1"}, "write a CID and a port"},
		"no number":       {[]string{"-connect", "fd://x"}, "write the number"},
		"MAC":             {[]string{"-mac", "nonsense"}, "-mac"},
		"MTU":             {[]string{"-mtu", "many"}, "-mtu: write a number from 68 to 65521"},
		"DHCP":            {[]string{"-dhcp", "dhclient"}, "exec:COMMAND"},
		"DHCP no command": {[]string{"-dhcp", "exec: "}, "exec:COMMAND"},
		"DHCP no such":    {[]string{"-dhcp", "exec:no-such-client -f"}, "no-such-client"},
		"DHCP no script":  {[]string{"-dhcp", "script:" + gone}, "gone"},
		"names: no place": {[]string{"-resolv-conf", filepath.Join(gone, "resolv.conf")}, "-resolv-conf: "},
		"names: not ours": {[]string{"-connect", "vsock:2:1", "-resolv-conf", gone, "-dhcp", "none"}, "-resolv-conf goes with -dhcp builtin"},
		"protocol alone":  {[]string{"-connect", "vsock:2:1", "-protocol", "rancher-desktop"}, "-protocol goes with -handshake"},
		"framing":         {[]string{"-framing", "offload"}, "auto or plain"},
		"unknown flag":    {[]string{"-nonsense"}, "-nonsense"},
		"argument":        {[]string{"-connect", "vsock:2:1", "more"}, `"more" is no flag`},

		"handshake: unknown scheme": {[]string{"-handshake", "fd://3"}, "vsock:PORT or unix:PATH"},
		"handshake: no path":        {[]string{"-handshake", "unix:"}, "write a path"},
		"handshake: no port":        {[]string{"-handshake", "vsock://"}, "write a port"},
		"handshake: a CID":          {[]string{"-handshake", "vsock://2:6669"}, "write a port"},
		"protocol":                  {[]string{"-protocol", "podman"}, "rancher-desktop or rancher-desktop-2"},
		"restart":                   {[]string{"-restart=maybe"}, "-restart"},
		"namespace by name":         {[]string{"-netns", "nosuch"}, "write a path, as in /run/netns/nosuch"},
	})
}

func TestHelp(t *testing.T) {
	servicetest.Help(t, run, "-connect", "-iface", "-mac", "-netns", "-mtu", "-resolv-conf", "-dhcp", "-framing", "-handshake", "-protocol", "-restart", "-v")
}

// Whatever the system, and whoever runs it: what fails is said, with exit code 1.
func TestFailureIsSaid(t *testing.T) {
	var stderr bytes.Buffer
	missing := t.TempDir() + string(os.PathSeparator) + "gone"
	require.Equal(t, 1, run(t.Context(), []string{"-connect", "unix://" + missing, "-netns", missing}, &stderr))
	require.Contains(t, stderr.String(), "guestswitch: ")
}

func TestFlags(t *testing.T) {
	for name, c := range map[string]struct {
		args     []string
		restart  bool
		protocol *discovery.Protocol // nil: no handshake
		netns    string
	}{
		"no handshake":         {nil, false, nil, ""},
		"restart alone":        {[]string{"-restart"}, true, nil, ""},
		"handshake":            {[]string{"-handshake", "vsock://:6669"}, true, &discovery.RancherDesktop, ""},
		"handshake, no URL":    {[]string{"-handshake", "vsock:6669"}, true, &discovery.RancherDesktop, ""},
		"host, no URL":         {[]string{"-connect", "vsock:2:6656"}, false, nil, ""},
		"host, unix, no URL":   {[]string{"-connect", "unix:/p.sock"}, false, nil, ""},
		"names":                {[]string{"-resolv-conf", filepath.Join(t.TempDir(), "r"), "-dhcp", "builtin"}, false, nil, ""},
		"its protocol":         {[]string{"-handshake", "vsock://:6670", "-protocol", "rancher-desktop-2"}, true, &discovery.RancherDesktop2, ""},
		"handshake, once":      {[]string{"-handshake", "unix:///p.sock", "-restart=false"}, false, &discovery.RancherDesktop, ""},
		"namespace by path":    {[]string{"-netns", "/run/netns/guest"}, false, nil, "/run/netns/guest"},
		"namespace of process": {[]string{"-netns", "4711"}, false, nil, "/proc/4711/ns/net"},
		"path that looks so":   {[]string{"-netns", "./4711"}, false, nil, "./4711"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(append([]string{"-connect", "vsock://2:6656"}, c.args...), new(bytes.Buffer))
			require.NoError(t, err)
			require.Equal(t, c.restart, o.restart)
			require.Equal(t, c.netns, o.guest.Tap.NetNS)
			require.NotNil(t, o.guest.Dial)
			if c.protocol == nil {
				require.Nil(t, o.guest.Responder)
				require.Nil(t, o.guest.Listen)
				return
			}
			require.NotNil(t, o.guest.Listen)
			require.Equal(t, *c.protocol, o.guest.Responder.Protocol)
			require.NotNil(t, o.guest.Responder.Filter)
		})
	}
}

func TestFraming(t *testing.T) {
	for want, args := range map[guestswitch.Framing][]string{
		guestswitch.FramingAuto:  {"-framing", "auto"},
		guestswitch.FramingPlain: {"-framing", "plain"},
	} {
		o, err := parse(append([]string{"-connect", "vsock://2:6656"}, args...), new(bytes.Buffer))
		require.NoError(t, err)
		require.Equal(t, want, o.guest.Framing)
	}
	o, err := parse([]string{"-connect", "vsock://2:6656"}, new(bytes.Buffer))
	require.NoError(t, err)
	require.Equal(t, guestswitch.FramingAuto, o.guest.Framing, "what is used when nothing is said")
}

// FAILURES 10: only the host directs this machine's network; a process of the same
// VM comes from CID 1 or from the VM's own.
func TestWhoMaySayREADY(t *testing.T) {
	o, err := parse([]string{"-connect", "vsock://2:6656", "-handshake", "vsock://:6669"}, new(bytes.Buffer))
	require.NoError(t, err)
	for name, c := range map[string]struct {
		from net.Addr
		may  bool
	}{
		"the host":        {&vsock.Addr{ContextID: 2, Port: 1000}, true},
		"the hypervisor":  {&vsock.Addr{ContextID: 0, Port: 1000}, false},
		"this machine":    {&vsock.Addr{ContextID: 1, Port: 1000}, false},
		"a VM":            {&vsock.Addr{ContextID: 3, Port: 1000}, false},
		"TCP":             {&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, false},
		"something else":  {pipeAddr{}, false},
		"nobody, so what": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := o.guest.Responder.Filter.Allow(from{addr: c.from})
			require.Equal(t, c.may, err == nil, "%v", err)
		})
	}
}

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// The program comes back when that may help. What it lacks to make the interface it
// will lack again; the host's socket may be somebody else's for a while.
func TestWhatARestartMends(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		mends bool
	}{
		"host is gone":       {io.EOF, true},
		"host's socket":      {&net.OpError{Op: "dial", Err: fs.ErrPermission}, true},
		"handshake's socket": {&net.OpError{Op: "listen", Err: fs.ErrPermission}, false},
		"namespace":          {&fs.PathError{Op: "open", Err: fs.ErrPermission}, false},
		"name is taken":      {guestswitch.ErrTapExists, false},
	} {
		err := explain(fmt.Errorf("guestswitch: %w", c.err), "/nosuch")
		require.ErrorIs(t, err, c.err, name)
		var p interface{ Permanent() bool }
		require.Equal(t, c.mends, !errors.As(err, &p), name)
	}
	require.NoError(t, explain(nil, ""))
	gone := &fs.PathError{Op: "open", Path: "/nosuch", Err: fs.ErrNotExist}
	require.ErrorContains(t, explain(gone, "/nosuch"), "ip netns add")
	require.Equal(t, gone, explain(gone, "/other"))
}

func TestNotifications(t *testing.T) {
	two := lifecycle.Status{State: lifecycle.Backoff, Err: errors.Join(errors.New("one"), errors.New("READY=1"))}
	require.Equal(t, "STATUS=trying again: one; READY=1", notification(two), "one line is one assignment")
	for state, says := range map[lifecycle.State]string{
		lifecycle.Starting: "STATUS=waiting for the host",
		lifecycle.Ready:    "READY=1\nSTATUS=the network is up",
		lifecycle.Degraded: "STATUS=degraded",
		lifecycle.Stopping: "STOPPING=1\nSTATUS=stopping",
		lifecycle.Failed:   "STOPPING=1\nSTATUS=failed",
		lifecycle.Stopped:  "",
	} {
		require.Equal(t, says, notification(lifecycle.Status{State: state}))
	}
}
