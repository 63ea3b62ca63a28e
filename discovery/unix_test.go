// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

// socketDir makes a directory whose path leaves room for a socket's name.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "d") //nolint:usetesting // t.TempDir is too long a path for a socket on macOS
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "test"))
	if err != nil {
		house.WineLacks(t, "unix sockets")
	}
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return dir
}

func onlyPeer(t *testing.T, s discovery.Source) discovery.Peer {
	t.Helper()
	peers, err := s.Peers(t.Context())
	require.NoError(t, err)
	require.Len(t, peers, 1)
	return peers[0]
}

// unixPeer makes a peer over unix sockets and listens on one port, as its guest.
func unixPeer(t *testing.T, port uint32) (discovery.Peer, net.Listener) {
	t.Helper()
	peer := onlyPeer(t, discovery.Unix(socketDir(t)))
	ln, err := peer.Listen(port)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return peer, ln
}

// TestHandshakeOverUnixSockets: FAILURES 1. Both ends, from the search to the data
// connection, a hundred times, with nothing left of it.
func TestHandshakeOverUnixSockets(t *testing.T) {
	peer := onlyPeer(t, discovery.Unix(socketDir(t)))
	d := discoverer(these(peer))
	d.Interval = 1 // until the guest listens
	once := func() {
		guest := make(chan error, 1)
		go func() {
			ln, err := peer.Listen(protocol.HandshakePort)
			if err != nil {
				guest <- err
				return
			}
			r := &discovery.Responder{Protocol: protocol, Filter: anyone}
			if err := r.WaitReady(context.Background(), ln); err != nil {
				guest <- err
				return
			}
			conn, err := peer.Dial(context.Background(), protocol.DataPort)
			if err == nil {
				err = conn.Close()
			}
			guest <- err
		}()
		found, err := d.Discover(t.Context())
		require.NoError(t, err)
		require.Equal(t, peer.ID(), found.ID())
		ln, err := found.Listen(protocol.DataPort)
		require.NoError(t, err)
		require.NoError(t, d.SignalReady(t.Context(), found))
		conn, err := ln.Accept()
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.NoError(t, ln.Close())
		require.NoError(t, <-guest)
	}
	once()
	before := descriptors(t)
	for range 100 {
		once()
	}
	require.Equal(t, before, descriptors(t), "open descriptors")
	left, err := os.ReadDir(peer.ID())
	require.NoError(t, err)
	require.Empty(t, left)
}

// descriptors counts the open ones, where the system tells.
func descriptors(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}

func TestUnixSource(t *testing.T) {
	dir := filepath.Join(socketDir(t), "vm")
	source := discovery.Unix(dir)
	peers, err := source.Peers(t.Context())
	require.NoError(t, err, "a directory that is not there yet is no error")
	require.Empty(t, peers)

	require.NoError(t, os.Mkdir(dir, 0o700))
	peer := onlyPeer(t, source)
	require.Equal(t, dir, peer.ID())
	_, err = peer.Dial(t.Context(), 6669)
	require.ErrorIs(t, err, os.ErrNotExist)

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = discoverer(discovery.Unix(file)).Discover(t.Context())
	require.ErrorContains(t, err, "not a directory")
	requirePermanent(t, err)
}

// TestUnixDialAndItsContext: it ends what it has to end, and not the connection.
func TestUnixDialAndItsContext(t *testing.T) {
	peer, ln := unixPeer(t, 6656)
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := peer.Dial(ctx, 6656)
	require.NoError(t, err)
	defer shut(conn)
	accepted, err := ln.Accept()
	require.NoError(t, err)
	defer shut(accepted)
	cancel()
	_, err = peer.Dial(ctx, 6656)
	require.ErrorIs(t, err, context.Canceled)
	_, err = io.WriteString(conn, "still here")
	require.NoError(t, err)
	require.NoError(t, conn.(interface{ CloseWrite() error }).CloseWrite())
	got, err := io.ReadAll(accepted)
	require.NoError(t, err)
	require.Equal(t, "still here", string(got))
}

// TestUnixListen: only the user of the directory gets in, and the socket is there
// as long as somebody listens.
func TestUnixListen(t *testing.T) {
	peer, ln := unixPeer(t, 6656)
	path := filepath.Join(peer.ID(), "6656.sock")
	info, err := os.Lstat(path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" { // has no such modes
		require.Equal(t, os.ModeSocket|0o600, info.Mode())
	}

	_, err = peer.Listen(6656)
	require.Error(t, err, "somebody listens there")
	conn, err := peer.Dial(t.Context(), 6656)
	require.NoError(t, err, "the listener was taken away")
	_, err = io.WriteString(conn, "me")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	accepted, err := ln.Accept()
	require.NoError(t, err)
	got, err := io.ReadAll(accepted)
	require.NoError(t, err)
	require.Equal(t, "me", string(got), "the second listener asked by connecting")
	require.NoError(t, accepted.Close())

	require.NoError(t, ln.Close())
	require.NoFileExists(t, path)
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// TestUnixListenReplacesWhatACrashLeft, and nothing else.
func TestUnixListenReplacesWhatACrashLeft(t *testing.T) {
	peer, ln := unixPeer(t, 6656)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	require.FileExists(t, filepath.Join(peer.ID(), "6656.sock"))
	again, err := peer.Listen(6656)
	require.NoError(t, err)
	require.NoError(t, again.Close())

	file := filepath.Join(peer.ID(), "6657.sock")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	_, err = peer.Listen(6657)
	require.Error(t, err)
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "precious", string(content))
}

func TestUnixPathTooLong(t *testing.T) {
	dir := filepath.Join(socketDir(t), strings.Repeat("x", 100))
	require.NoError(t, os.Mkdir(dir, 0o700))
	peer := onlyPeer(t, discovery.Unix(dir))
	_, err := peer.Dial(t.Context(), 6669)
	require.ErrorContains(t, err, "shorter directory")
	_, err = peer.Listen(6669)
	require.ErrorContains(t, err, "shorter directory")
}
