// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
	"github.com/rancher-sandbox/guestnet/examples/internal/vmflag"
	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

// go-winio has one goroutine that never ends.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/Microsoft/go-winio.ioCompletionProcessor"))
}

func TestWrongCommandLines(t *testing.T) {
	servicetest.Mistakes(t, "hostswitch", run, map[string]servicetest.Mistake{
		"nothing":           {nil, "-listen or -discover is missing"},
		"both":              {[]string{"-listen", "unix:/p", "-discover", "hyperv"}, "-listen and -discover: write one of them, not both"},
		"discover nonsense": {[]string{"-discover", "xen"}, vmflag.SourceForms},
		"protocol of none":  {[]string{"-listen", here("p"), "-protocol", "rancher-desktop"}, "-protocol goes with -discover"},
		"MTU":               {[]string{"-mtu", "abc"}, "-mtu: write a number from 576 to 65521"},
		"MTU too small":     {[]string{"-mtu", "575"}, "-mtu: write a number from 576 to 65521"},
		"forward: no form":  {[]string{"-forward", "8080:80"}, "write protocol:local=remote, as in tcp:127.0.0.1:8080=192.168.127.2:80"},
		"forward: protocol": {[]string{"-forward", "http:127.0.0.1:8080=:80"}, "write protocol:local=remote, as in"},
		"forward: no port":  {[]string{"-forward", "tcp:8080=80"}, `-forward: "8080" is not an address and a port, as in tcp:127.0.0.1:8080=192.168.127.2:80`},
		"forward: to where": {[]string{"-forward", "tcp:127.0.0.1:8080=guest:80"}, `"guest:80" is not an address and a port`},
		"forward: port":     {[]string{"-forward", "tcp::8080=:65536"}, `":65536" is not an address and a port`},
		"protocol":          {[]string{"-discover", "hyperv", "-protocol", "podman"}, "rancher-desktop or rancher-desktop-2"},
		"listen nonsense":   {[]string{"-listen", "tcp:127.0.0.1:1"}, "write " + guestForms},
		"api nonsense":      {[]string{"-listen", here("p"), "-api", "tcp:127.0.0.1:1"}, "write " + service.LocalForms},
		"argument":          {[]string{"-discover", "hyperv", "more"}, `"more" is no flag`},
	})
}

func TestHelp(t *testing.T) {
	servicetest.Help(t, run, "-listen", "-discover", "-protocol", "-api", "-capture", "-mtu", "-subnet", "-forward", "-v")
}

func TestFlags(t *testing.T) {
	o, err := parse([]string{"-listen", here("net"), "-api", here("api")}, io.Discard)
	require.NoError(t, err)
	require.Nil(t, o.source)
	require.NotNil(t, o.guests)
	require.NotNil(t, o.control)

	o, err = parse([]string{"-discover", "unix:" + t.TempDir(), "-protocol", "rancher-desktop-2"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, discovery.RancherDesktop2, o.protocol)

	o, err = parse([]string{"-discover", "unix:" + t.TempDir()}, io.Discard)
	require.NoError(t, err)
	require.NotNil(t, o.source)
	require.Nil(t, o.control)
	require.Equal(t, discovery.RancherDesktop, o.protocol)
}

// What a flag lets pass the network takes, and what it does not is said with the flag.
func TestFlagsOfTheNetwork(t *testing.T) {
	for _, mtu := range []string{"576", "65521"} {
		o, err := parse([]string{"-listen", here("p"), "-mtu", mtu, "-forward", "TCP:localhost:0=:80", "-forward", "udp::0=192.168.127.2:53"}, io.Discard)
		require.NoError(t, err)
		sw, err := hostswitch.New(o.config)
		require.NoError(t, err)
		require.Len(t, sw.Forwards(), 2)
		require.NoError(t, sw.Close())
	}
	var stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), []string{"-listen", here("p"), "-forward", "tcp:127.0.0.1:0=1.2.3.4:80"}, &stderr))
	require.Contains(t, stderr.String(), "hostswitch: -forward: hostswitch: expose tcp")
}

// here is an address where only this user connects, on this system.
func here(path string) string {
	if runtime.GOOS == "windows" {
		return "npipe:" + path
	}
	return "unix:" + path
}

// What this system does not have ends the program.
func TestDiscoverWhatThereIsNot(t *testing.T) {
	where := "hyperv"
	if runtime.GOOS == "windows" {
		where = "vsock:3"
	}
	_, err := parse([]string{"-discover", where}, io.Discard)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// lines is a log, for a program that runs.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func (l lines) next(ctx context.Context, t *testing.T) string {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-ctx.Done():
		require.Fail(t, "nothing more is logged")
		return ""
	}
}

// wait returns the next line that has a text.
func (l lines) wait(ctx context.Context, t *testing.T, text string) string {
	t.Helper()
	for {
		if line := l.next(ctx, t); strings.Contains(line, text) {
			return line
		}
	}
}

// Whoever waits for a VM says so at once, and why there is none. That is not ready.
func TestWaiting(t *testing.T) {
	log := make(lines, 100)
	gone := filepath.Join(t.TempDir(), "gone")
	o, err := parse([]string{"-discover", "unix:" + gone}, log)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, o) }()
	line := log.next(ctx, t)
	require.Contains(t, line, `msg="waiting for the VM" discover=unix:`)
	require.Contains(t, line, "reason=")
	cancel()
	require.NoError(t, <-ended)
	close(log)
	for line := range log {
		require.NotContains(t, line, "ready")
	}
}

type anyone struct{}

func (anyone) Allow(net.Conn) error { return nil }

// A VM is found, loses its connection, and is found again; the end is clean.
func TestDiscover(t *testing.T) {
	dir := servicetest.Dir(t)
	try, err := new(net.ListenConfig).Listen(t.Context(), "unix", dir+"/try")
	if err != nil {
		house.WineLacks(t, "unix sockets")
	}
	require.NoError(t, err)
	require.NoError(t, try.Close())
	log := make(lines, 1000)
	o, err := parse([]string{"-discover", "unix:" + dir}, log)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, o) }()
	require.Regexp(t, `msg="waiting for the VM" discover=unix:[^ ]*\n$`, log.next(ctx, t))

	peers, err := discovery.Unix(dir).Peers(ctx)
	require.NoError(t, err)
	for range 2 {
		ln, err := peers[0].Listen(o.protocol.HandshakePort)
		require.NoError(t, err)
		r := discovery.Responder{Protocol: o.protocol, Filter: anyone{}}
		require.NoError(t, r.WaitReady(ctx, ln))
		conn, err := peers[0].Dial(ctx, o.protocol.DataPort)
		require.NoError(t, err)
		g, err := switchtest.NewGuest(conn, switchtest.Config{})
		require.NoError(t, err)
		_, err = g.DHCP(ctx)
		require.NoError(t, err)
		require.Contains(t, log.wait(ctx, t, "msg=ready"), "discover=unix:")
		require.NoError(t, g.Close())
	}
	cancel()
	require.NoError(t, <-ended)
}
