// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
	"github.com/rancher-sandbox/guestnet/examples/internal/vmflag"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

// go-winio has one goroutine that never ends.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/Microsoft/go-winio.ioCompletionProcessor"))
}

func TestWrongCommandLines(t *testing.T) {
	servicetest.Mistakes(t, "hostswitch", run, map[string]servicetest.Mistake{
		"nothing":           {nil, "one of -listen and -discover, not both"},
		"both":              {[]string{"-listen", "unix:/p", "-discover", "hyperv"}, "one of -listen and -discover, not both"},
		"discover nonsense": {[]string{"-discover", "xen"}, vmflag.SourceForms},
		"wrong CID":         {[]string{"-discover", "vsock:3,x"}, `"x" is not a CID`},
		"protocol":          {[]string{"-discover", "hyperv", "-protocol", "podman"}, "rancher-desktop or rancher-desktop-2"},
		"listen nonsense":   {[]string{"-listen", "tcp:127.0.0.1:1"}, "write " + guestForms},
		"api nonsense":      {[]string{"-discover", "hyperv", "-api", "tcp:127.0.0.1:1"}, "write " + service.LocalForms},
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

	o, err = parse([]string{"-discover", "vsock:3,42", "-protocol", "rancher-desktop-2"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []uint32{3, 42}, o.source.(*discovery.CIDSource).CIDs)
	require.Equal(t, discovery.RancherDesktop2, o.protocol)

	o, err = parse([]string{"-discover", "hyperv"}, io.Discard)
	require.NoError(t, err)
	require.NotNil(t, o.source)
	require.Nil(t, o.control)
	require.Equal(t, discovery.RancherDesktop, o.protocol)
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
	o, err := parse([]string{"-discover", where}, io.Discard)
	require.NoError(t, err)
	require.ErrorIs(t, serve(t.Context(), o), errors.ErrUnsupported)
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
	o, err := parse([]string{"-discover", "unix:" + dir}, io.Discard)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, o) }()

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
		require.NoError(t, g.Close())
	}
	cancel()
	require.NoError(t, <-ended)
}
