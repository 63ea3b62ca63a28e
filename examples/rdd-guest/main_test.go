// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"os"
	"testing"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
)

// TestMain is also the program itself, for tests that need it as a process.
func TestMain(m *testing.M) {
	if os.Getenv("RDD_GUEST") == "run" {
		main()
	}
	goleak.VerifyTestMain(m)
}

func TestWrongCommandLines(t *testing.T) {
	servicetest.Mistakes(t, "rdd-guest", run, map[string]servicetest.Mistake{
		"unknown flag":        {[]string{"-nonsense"}, "-nonsense"},
		"argument":            {[]string{"more"}, `"more" is no flag`},
		"listen: nonsense":    {[]string{"-listen", "6660"}, "vsock:PORT, unix:PATH, tcp:ADDRESS:PORT or fd:NUMBER"},
		"listen: no port":     {[]string{"-listen", "vsock:"}, "vsock:6660"},
		"listen: a CID":       {[]string{"-listen", "vsock:2:6660"}, "vsock:6660"},
		"listen: large port":  {[]string{"-listen", "vsock:4294967296"}, "vsock:6660"},
		"listen: no path":     {[]string{"-listen", "unix:"}, "write a path"},
		"listen: tcp port":    {[]string{"-listen", "tcp:2375"}, "tcp:127.0.0.1:2375"},
		"listen: tcp address": {[]string{"-listen", "tcp::2375"}, "tcp:127.0.0.1:2375"},
		"listen: tcp, whom":   {[]string{"-listen", "tcp:127.0.0.1:2375"}, "-allow is missing"},
		"listen: fd":          {[]string{"-listen", "fd:three"}, "fd:3"},
		"target: nonsense":    {[]string{"-target", "/var/run/docker.sock"}, "unix:/var/run/docker.sock"},
		"target: no path":     {[]string{"-target", "unix:"}, "write unix:PATH"},
		"target: no port":     {[]string{"-target", "tcp:127.0.0.1"}, "tcp:ADDRESS:PORT"},
		"allow: nonsense":     {[]string{"-allow", "me"}, "cid:NUMBER, uid:NUMBER"},
		"allow: no number":    {[]string{"-allow", "cid:host"}, "cid:NUMBER"},
		"allow: no address":   {[]string{"-allow", "127.0.0"}, "an address or prefix"},
		"allow: CID on unix":  {[]string{"-listen", "unix:/s", "-allow", "cid:2"}, "-allow lets nobody in on a socket of unix"},
		"allow: two, neither": {[]string{"-listen", "vsock:1", "-allow", "uid:0", "-allow", "::1/128"}, "-allow lets nobody in on a socket of vsock"},
		"drain":               {[]string{"-drain", "10"}, "-drain"},
	})
}

func TestHelp(t *testing.T) {
	servicetest.Help(t, run, "-listen", "-target", "-allow", "-drain", "-idle", "-max-conns", "-v")
}

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// FAILURES 10: unless somebody is named, the host is let in and nobody else.
func TestWhoMayConnect(t *testing.T) {
	cid := func(n uint32) net.Addr { return &vsock.Addr{ContextID: n, Port: 1000} }
	tcp := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	for name, c := range map[string]struct {
		args []string
		from net.Addr
		may  bool
	}{
		"the host":                   {nil, cid(2), true},
		"the host, port named":       {[]string{"-listen", "vsock:1"}, cid(2), true},
		"this guest":                 {[]string{"-listen", "vsock:1"}, cid(1), false},
		"another CID":                {[]string{"-listen", "vsock:1"}, cid(3), false},
		"TCP":                        {[]string{"-listen", "vsock:1"}, tcp, false},
		"a CID that is named":        {[]string{"-allow", "cid:3"}, cid(3), true},
		"the host, when another is":  {[]string{"-allow", "cid:3"}, cid(2), false},
		"two are named, the first":   {[]string{"-allow", "cid:3", "-allow", "cid:4"}, cid(3), true},
		"two are named, the other":   {[]string{"-allow", "cid:3", "-allow", "cid:4"}, cid(4), true},
		"two are named, not a third": {[]string{"-allow", "cid:3", "-allow", "cid:4"}, cid(2), false},
		"one is for TCP":             {[]string{"-allow", "127.0.0.0/8", "-allow", "cid:3"}, cid(3), true},
		"a prefix":                   {[]string{"-listen", "tcp:127.0.0.1:1", "-allow", "127.0.0.0/8"}, tcp, true},
		"an address":                 {[]string{"-listen", "tcp:127.0.0.1:1", "-allow", "127.0.0.1"}, tcp, true},
		"an address, mapped":         {[]string{"-listen", "tcp:127.0.0.1:1", "-allow", "::ffff:127.0.0.1"}, tcp, true},
		"another address":            {[]string{"-listen", "tcp:127.0.0.1:1", "-allow", "127.0.0.2"}, tcp, false},
		"anybody":                    {[]string{"-allow", "any"}, cid(4), true},
		"unix is not asked for CIDs": {[]string{"-listen", "unix:/s"}, cid(2), false},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(c.args, io.Discard)
			require.NoError(t, err)
			f := o.bridge.Filter
			if f == nil { // the listener is known only when it is open
				f, err = filter(o.allowed, "vsock")
				require.NoError(t, err)
			}
			require.Equal(t, c.may, f.Allow(from{addr: c.from}) == nil)
		})
	}
	_, err := filter(nil, "tcp")
	require.ErrorContains(t, err, "say who may connect")
}
