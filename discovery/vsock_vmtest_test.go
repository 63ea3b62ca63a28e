// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

// These tests need real AF_VSOCK with vsock_loopback, where CID 1 is this machine
// as its own guest; internal/vmtest runs them in a machine that has it.

package discovery_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

func listenVsock(t *testing.T, port uint32) net.Listener {
	t.Helper()
	ln, err := vsock.ListenContextID(0xffffffff, port, nil)
	require.NoError(t, err)
	return ln
}

// TestIntegrationVsockHandshake: both ends, time and again, with nothing left.
func TestIntegrationVsockHandshake(t *testing.T) {
	d := discoverer(discovery.CIDs(1, 7)) // 7 is no guest
	once := func() {
		guest := make(chan error, 1)
		ln := listenVsock(t, protocol.HandshakePort)
		go func() {
			r := &discovery.Responder{Protocol: protocol, Filter: anyone}
			if err := r.WaitReady(context.Background(), ln); err != nil {
				guest <- err
				return
			}
			conn, err := vsock.DialContext(context.Background(), 1, protocol.DataPort, nil)
			if err == nil {
				_, err = io.WriteString(conn, "hello")
				_ = conn.CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
			guest <- err
		}()
		found, err := d.Discover(t.Context())
		require.NoError(t, err)
		require.Equal(t, "1", found.ID())
		data, err := found.Listen(protocol.DataPort)
		require.NoError(t, err)
		require.NoError(t, d.SignalReady(t.Context(), found))
		conn, err := data.Accept()
		require.NoError(t, err)
		text, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.Equal(t, "hello", string(text))
		require.Implements(t, (*interface{ CloseWrite() error })(nil), conn)
		require.NoError(t, conn.Close())
		require.NoError(t, data.Close())
		require.NoError(t, <-guest)
	}
	once()
	before := descriptors(t)
	for range 10 {
		once()
	}
	require.Equal(t, before, descriptors(t))
}

// TestIntegrationVsockOldHost: it writes READY without reading, and closes.
func TestIntegrationVsockOldHost(t *testing.T) {
	ln := listenVsock(t, protocol.HandshakePort)
	peer, err := discovery.CIDPeer(1)
	require.NoError(t, err)
	conn, err := peer.Dial(t.Context(), protocol.HandshakePort)
	require.NoError(t, err)
	_, err = io.WriteString(conn, "READY")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	r := &discovery.Responder{Protocol: protocol, Filter: anyone}
	require.NoError(t, r.WaitReady(t.Context(), ln))
}

// TestIntegrationVsockRoutesByCID: two guests share a port; who is neither is
// closed, and the port is free when both have closed.
func TestIntegrationVsockRoutesByCID(t *testing.T) {
	peers, err := discovery.CIDs(1, 3).Peers(t.Context())
	require.NoError(t, err)
	three, err := peers[1].Listen(protocol.DataPort)
	require.NoError(t, err)
	stranger, err := peers[0].Dial(t.Context(), protocol.DataPort)
	require.NoError(t, err)
	_, err = stranger.Read(make([]byte, 1))
	require.Error(t, err, "CID 1 was let in where only 3 may")
	require.NoError(t, stranger.Close())

	one, err := peers[0].Listen(protocol.DataPort)
	require.NoError(t, err)
	conn, err := peers[0].Dial(t.Context(), protocol.DataPort)
	require.NoError(t, err)
	accepted, err := one.Accept()
	require.NoError(t, err)
	require.EqualValues(t, 1, accepted.RemoteAddr().(*vsock.Addr).ContextID)
	require.NoError(t, accepted.Close())
	require.NoError(t, conn.Close())

	require.NoError(t, three.Close())
	require.NoError(t, one.Close())
	_, err = one.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, listenVsock(t, protocol.DataPort).Close())
}
