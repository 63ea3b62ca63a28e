// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

// Package guest_test is the guest's end of the tests in machines.
package guest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/internal/vmtest/qemu"
	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
)

var (
	host  = flag.Uint("host", 0, "CID of the host")
	await = flag.Uint("await", 0, "wait for a vsock device with this CID")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGuest(t *testing.T) {
	qemu.AwaitVsock(uint32(*await))
	require.True(t, t.Run("Stream", testStream)) // else the other end is lost
	require.True(t, t.Run("Network", testNetwork))
}

// testStream: who a peer is, and how streams end, either end first.
func testStream(t *testing.T) {
	ln, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, talk.GuestPort, nil)
	require.NoError(t, err)
	defer ln.Close() //nolint:errcheck // nothing is left in it

	conn := dialHost(t, talk.HostPort) // which listens sooner or later
	require.NoError(t, talk.Ask(conn, talk.Long))
	_, err = conn.Write([]byte{0})
	require.ErrorIs(t, err, unix.EPIPE, "after CloseWrite")
	require.NoError(t, conn.Close())

	conn = accept(t, ln, uint32(*host))
	require.NoError(t, talk.Ask(conn, talk.Long))
	require.NoError(t, conn.Close())

	// A machine that dials itself, by whichever address, is CID 1: never the host,
	// unless that is CID 1 too.
	own, err := vsock.ContextID()
	require.NoError(t, err)
	for _, cid := range []uint32{unix.VMADDR_CID_LOCAL, own} {
		conn, err := vsock.DialContext(t.Context(), cid, talk.GuestPort, nil)
		require.NoError(t, err)
		require.NoError(t, accept(t, ln, unix.VMADDR_CID_LOCAL).Close())
		require.NoError(t, conn.Close())
	}
	_, err = vsock.DialContext(t.Context(), uint32(*host), talk.NobodysPort, nil)
	require.ErrorIs(t, err, unix.ECONNRESET, "nobody listens there")
}

func accept(t *testing.T, ln *vsock.Listener, peer uint32) *vsock.Conn {
	t.Helper()
	require.NoError(t, ln.SetDeadline(time.Now().Add(talk.Patience)))
	conn, err := ln.Accept()
	require.NoError(t, err)
	require.Equal(t, peer, conn.RemoteAddr().(*vsock.Addr).ContextID)
	return conn.(*vsock.Conn)
}

func dialHost(t *testing.T, port uint32) (conn *vsock.Conn) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		conn, err = vsock.DialContext(t.Context(), uint32(*host), port, nil)
		return err == nil
	}, talk.Patience, 50*time.Millisecond)
	return conn
}

// only is a filter that lets in one CID.
type only uint32

func (o only) Allow(conn net.Conn) error {
	if addr := conn.RemoteAddr().(*vsock.Addr); addr.ContextID != uint32(o) {
		return fmt.Errorf("%v is not the host", addr)
	}
	return nil
}

// testNetwork: from the handshake to a tap in a namespace, which the vsock is not
// in, and to what one wants a network for.
func testNetwork(t *testing.T) {
	protocol := discovery.RancherDesktop
	ns := newNamespace(t)
	ln := ns.listen(talk.Inward)
	for round := range talk.Rounds {
		ctx, cancel := context.WithTimeout(t.Context(), talk.Patience)
		defer cancel()
		handshake, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, protocol.HandshakePort, nil)
		require.NoError(t, err)
		responder := discovery.Responder{Protocol: protocol, Filter: only(*host), Timeout: talk.Patience}
		require.NoError(t, responder.WaitReady(ctx, handshake))

		configured := make(chan guestswitch.Lease, 1)
		g := guestswitch.Guest{
			Dial: func(ctx context.Context) (net.Conn, error) {
				return vsock.DialContext(ctx, uint32(*host), protocol.DataPort, nil)
			},
			Tap: guestswitch.Tap{NetNS: ns.path},
			OnEvent: func(e guestswitch.Event) {
				t.Log(e.Kind, e.Err)
				if e.Kind == guestswitch.Configured {
					configured <- e.Lease
				}
			},
		}
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()

		select {
		case lease := <-configured:
			require.Equal(t, talk.GuestAddr, lease.Addr.String())
		case err := <-ended:
			require.NoError(t, err)
		}
		addresses, err := ns.lookup(ctx, "host.docker.internal")
		require.NoError(t, err)
		require.Equal(t, []string{"192.168.127.254"}, addresses)

		inward := make(chan error, 1)
		go func() { inward <- answer(ln) }()
		conn, err := ns.dial(ctx, "tcp", addresses[0]+talk.Outward)
		require.NoError(t, err)
		require.NoError(t, talk.Ask(conn, talk.Short), "to the host's loopback, round %d", round)
		require.NoError(t, conn.Close())
		require.NoError(t, <-inward, "from the host, round %d", round)

		if round < talk.Rounds-1 {
			cancel()
			require.NoError(t, <-ended)
		} else {
			require.ErrorIs(t, <-ended, io.EOF)
		}
	}
}

// answer answers one connection.
func answer(ln *net.TCPListener) error {
	if err := ln.SetDeadline(time.Now().Add(talk.Patience)); err != nil {
		return err
	}
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	return errors.Join(talk.Answer(conn), conn.Close())
}
