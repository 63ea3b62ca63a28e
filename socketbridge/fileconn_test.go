// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package socketbridge_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sockets returns a connected pair as it is inherited: blocking.
func sockets(t *testing.T, kind int) (ours, theirs *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
	require.NoError(t, err)
	ours, theirs = os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return ours, theirs
}

// TestFileConn: the types that Pipe knows, usable as if they had been dialled, and
// the descriptor is used up.
func TestFileConn(t *testing.T) {
	before := descriptors(t)
	ours, theirs := sockets(t, unix.SOCK_STREAM)
	a, err := socketbridge.FileConn(ours)
	require.NoError(t, err)
	require.IsType(t, &net.UnixConn{}, a)
	require.ErrorIs(t, ours.Close(), os.ErrClosed)
	b, err := socketbridge.FileConn(theirs)
	require.NoError(t, err)
	go func() { _, _ = io.Copy(b, b); _ = b.(*net.UnixConn).CloseWrite() }()
	ask(t, a.(*net.UnixConn), "hello")
	require.NoError(t, b.Close())

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	server, err := ln.Accept()
	require.NoError(t, err)
	f, err := server.(*net.TCPConn).File()
	require.NoError(t, err)
	require.NoError(t, server.Close())
	conn, err := socketbridge.FileConn(f)
	require.NoError(t, err)
	require.IsType(t, &net.TCPConn{}, conn)
	require.Equal(t, client.LocalAddr().String(), conn.RemoteAddr().String())
	require.NoError(t, conn.SetReadDeadline(past))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, conn.Close())
	require.NoError(t, client.Close())
	require.NoError(t, ln.Close())
	require.Equal(t, before, descriptors(t))
}

// TestFilesThatAreNoConnection are refused with what they are, and used up all the same.
func TestFilesThatAreNoConnection(t *testing.T) {
	before := descriptors(t)
	dir := t.TempDir()
	gram, other := sockets(t, unix.SOCK_DGRAM)
	ln := listenUnixFile(t, filepath.Join(dir, "a.sock"))
	plain, err := os.Create(filepath.Join(dir, "file"))
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	closed, err := os.Open(dir)
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	lonely := os.NewFile(uintptr(fd), "lonely")
	for f, why := range map[*os.File]string{
		gram: "a stream is needed", ln: "use FileListener", plain: "is no socket", r: "is no socket",
		closed: "closed", lonely: "not connected", nil: "nil file",
	} {
		conn, err := socketbridge.FileConn(f)
		require.ErrorContains(t, err, why)
		require.Nil(t, conn)
		if f != nil {
			require.ErrorIs(t, f.Close(), os.ErrClosed, why)
		}
	}
	require.NoError(t, w.Close())
	require.NoError(t, other.Close())

	stream, peer := sockets(t, unix.SOCK_STREAM)
	gram, other = sockets(t, unix.SOCK_DGRAM)
	plain, err = os.Open(filepath.Join(dir, "file"))
	require.NoError(t, err)
	for f, why := range map[*os.File]string{
		stream: "not a listening socket", gram: "a stream is needed", plain: "is no socket", closed: "closed", nil: "nil file",
	} {
		ln, err := socketbridge.FileListener(f)
		require.ErrorContains(t, err, why)
		require.Nil(t, ln)
		if f != nil {
			require.ErrorIs(t, f.Close(), os.ErrClosed, why)
		}
	}
	require.NoError(t, peer.Close())
	require.NoError(t, other.Close())
	require.Equal(t, before, descriptors(t))
}

// listenUnixFile returns the descriptor of a listener, which has no other.
func listenUnixFile(t *testing.T, path string) *os.File {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	f, err := ln.(*net.UnixListener).File()
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return f
}

// TestFileListener: as systemd passes them; the socket's file is systemd's.
func TestFileListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	ln, err := socketbridge.FileListener(listenUnixFile(t, path))
	require.NoError(t, err)
	client := dialUnix(t, path)
	conn, err := ln.Accept()
	require.NoError(t, err)
	require.IsType(t, &net.UnixConn{}, conn)
	require.NoError(t, conn.Close())
	hear(t, client, "")
	require.NoError(t, ln.Close())
	require.FileExists(t, path)

	tcp, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f, err := tcp.(*net.TCPListener).File()
	require.NoError(t, err)
	ln, err = socketbridge.FileListener(f)
	require.NoError(t, err)
	require.Equal(t, tcp.Addr(), ln.Addr())
	require.NoError(t, tcp.Close())
	require.NoError(t, ln.Close())
}

// TestVsockListeners as far as a kernel without vsock transport goes; connections
// are in internal/vmtest.
func TestVsockListeners(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // told as errors.ErrUnsupported
	}
	const port = 0x7ffffff0
	ln, err := socketbridge.ListenVsock(port)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		house.Missing(t, "no AF_VSOCK: modprobe vsock")
	}
	require.NoError(t, err)
	require.Equal(t, &vsock.Addr{ContextID: 0xffffffff, Port: port}, ln.Addr())
	_, err = socketbridge.ListenVsock(port)
	require.ErrorIs(t, err, socketbridge.ErrInUse)
	require.ErrorContains(t, err, "vsock port 2147483632")
	require.NoError(t, ln.Close())

	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrVM{CID: 0xffffffff, Port: port}))
	require.NoError(t, unix.Listen(fd, 1))
	ln, err = socketbridge.FileListener(os.NewFile(uintptr(fd), "vsock"))
	require.NoError(t, err)
	require.IsType(t, &vsock.Listener{}, ln)
	require.NoError(t, ln.Close())
	ln, err = socketbridge.ListenVsock(port)
	require.NoError(t, err)
	require.NoError(t, ln.Close())

	fd, err = unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	_, err = socketbridge.FileConn(os.NewFile(uintptr(fd), "vsock"))
	require.ErrorIs(t, err, unix.ENOTCONN)
}

// TestVsockDialEndsWithItsContext: FAILURES 28. Some kernels know at once that nobody is
// there, others ask and wait for two seconds: not for longer than the context lasts,
// and no descriptor is left.
func TestVsockDialEndsWithItsContext(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // told as errors.ErrUnsupported
	}
	var open []int
	for _, cid := range []uint32{1, 0x7ffffff0, 1} {
		dial := socketbridge.DialVsock(cid, 0x7fff0001)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := dial(ctx)
		cancel()
		require.Error(t, err)
		if _, answered := errors.AsType[syscall.Errno](err); !answered { // by the kernel, at once
			require.ErrorIs(t, err, context.DeadlineExceeded, "CID %d", cid)
		}
		_, err = dial(ctx)
		require.ErrorIs(t, err, ctx.Err(), "it had ended before")
		open = append(open, descriptors(t))
	}
	require.Equal(t, open[0], open[2], "descriptors")
}
