// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux && vmtest

// These tests need real AF_VSOCK with vsock_loopback, where CID 1 is this machine
// to itself; internal/vmtest runs in machines that have it.

package socketbridge_test

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// TestIntegrationVsockFileConn: an inherited vsock connection is one like any other,
// and the filter asks the kernel for its peer.
func TestIntegrationVsockFileConn(t *testing.T) {
	ln, err := socketbridge.ListenVsock(7000)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	client, err := socketbridge.DialVsock(1, 7000)(t.Context())
	require.NoError(t, err)
	server, err := ln.Accept()
	require.NoError(t, err)
	require.IsType(t, &vsock.Conn{}, server)

	require.NoError(t, socketbridge.AllowCID(1).Allow(server))
	require.ErrorContains(t, socketbridge.AllowCID(2).Allow(server), "its CID is 1, allowed is [2]")
	forged := lyingConn{server.(*vsock.Conn)}
	require.ErrorContains(t, socketbridge.AllowCID(2).Allow(forged), "its address says CID 2 and the kernel 1")

	raw, err := server.(*vsock.Conn).SyscallConn()
	require.NoError(t, err)
	var fd int
	require.NoError(t, raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }))
	require.NoError(t, err)
	conn, err := socketbridge.FileConn(os.NewFile(uintptr(fd), "inherited"))
	require.NoError(t, err)
	require.NoError(t, server.Close())
	require.EqualValues(t, 1, conn.RemoteAddr().(*vsock.Addr).ContextID)
	require.NoError(t, socketbridge.AllowCID(1).Allow(conn))

	require.NoError(t, conn.SetReadDeadline(past))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, conn.SetReadDeadline(time.Time{}))
	_, err = io.WriteString(client, "question")
	require.NoError(t, err)
	require.NoError(t, client.(*vsock.Conn).CloseWrite())
	hear(t, conn, "question")
	_, err = io.WriteString(conn, "answer")
	require.NoError(t, err)
	require.NoError(t, conn.(socketbridge.HalfCloser).CloseWrite())
	hear(t, client, "answer")
	require.NoError(t, conn.Close())
	require.NoError(t, conn.Close())
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, conn.(socketbridge.HalfCloser).CloseWrite(), net.ErrClosed)
	require.NoError(t, client.Close())
}

// lyingConn claims to come from the host.
type lyingConn struct{ *vsock.Conn }

func (lyingConn) RemoteAddr() net.Addr { return cid(2) }

// TestIntegrationVsockBridge: FAILURES 10. A process of the guest itself is refused
// before the target is dialled.
func TestIntegrationVsockBridge(t *testing.T) {
	path := echo(t)
	for allowed, want := range map[uint32]string{1: "hello", 2: ""} {
		ln, err := socketbridge.ListenVsock(7001)
		require.NoError(t, err)
		dialled := false
		b := &socketbridge.Bridge{Filter: socketbridge.AllowCID(allowed), Dial: func(ctx context.Context) (net.Conn, error) {
			dialled = true
			return socketbridge.DialUnix(path)(ctx)
		}}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Serve(ctx, ln) }()
		client, err := socketbridge.DialVsock(1, 7001)(t.Context())
		require.NoError(t, err)
		_, _ = io.WriteString(client, "hello")
		_ = client.(*vsock.Conn).CloseWrite()
		got, _ := io.ReadAll(client)
		require.Equal(t, want, string(got))
		require.NoError(t, client.Close())
		stop()
		require.NoError(t, <-done)
		require.Equal(t, want != "", dialled)
	}
}

// TestIntegrationVsockNobodyListens: what the kernel says of that does not say it.
func TestIntegrationVsockNobodyListens(t *testing.T) {
	_, err := socketbridge.DialVsock(1, 7002)(t.Context())
	require.ErrorIs(t, err, unix.ECONNRESET)
	require.ErrorContains(t, err, "nobody listens")
}
