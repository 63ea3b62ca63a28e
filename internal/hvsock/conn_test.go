// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// A raw is a connection of go-winio, with its faults: it panics of an empty Read,
// answers after its deadline, and says of a peer that has gone that it is closed itself.
type raw struct {
	net.Conn
	err      error         // of all that it does
	closing  chan struct{} // closed by Close
	inside   chan struct{} // closed by CloseWrite, if not nil
	overtook atomic.Bool   // Close did not wait for CloseWrite
}

func (r *raw) Read(b []byte) (int, error) {
	b[0] = 'x'
	return 1, r.err
}
func (r *raw) Write(b []byte) (int, error)      { return len(b), r.err }
func (*raw) RemoteAddr() net.Addr               { return &theAddr }
func (r *raw) SetReadDeadline(time.Time) error  { return r.err }
func (r *raw) SetWriteDeadline(time.Time) error { return r.err }

func (r *raw) CloseWrite() error {
	if r.inside != nil {
		close(r.inside)
		select {
		case <-r.closing:
			r.overtook.Store(true)
		case <-time.After(20 * time.Millisecond): // shorter would find less, and never too much
		}
	}
	return r.err
}

func (r *raw) Close() error {
	close(r.closing) // panics of a second time
	return nil
}

var theAddr = net.UnixAddr{Name: "raw", Net: "hvsock"}

func newRaw(err error) *raw { return &raw{err: err, closing: make(chan struct{})} }

// accept returns what a listener makes of r.
func accept(t *testing.T, r *raw) *Conn {
	t.Helper()
	conn, err := listener{&script{errs: []error{nil}, conn: r}}.Accept()
	require.NoError(t, err)
	return conn.(*Conn)
}

// TestAcceptedConn does what those of package net do, where go-winio's does not. Its
// address is go-winio's own, by whose type filters know it.
func TestAcceptedConn(t *testing.T) {
	conn := accept(t, newRaw(nil))
	require.Same(t, &theAddr, conn.RemoteAddr())
	for _, b := range [][]byte{nil, {}} {
		n, err := conn.Read(b)
		require.Zero(t, n)
		require.NoError(t, err)
	}
	b := make([]byte, 1)
	past := time.Now().Add(-time.Second)
	require.NoError(t, conn.SetReadDeadline(past))
	_, err := conn.Read(b)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	_, err = conn.Write(b)
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(past))
	_, err = conn.Write(b)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.True(t, op.Timeout())
	for _, later := range []time.Time{{}, time.Now().Add(time.Hour)} {
		require.NoError(t, conn.SetDeadline(later))
		n, err := conn.Read(b)
		require.NoError(t, err)
		require.Equal(t, "x", string(b[:n]))
		_, err = conn.Write(b)
		require.NoError(t, err)
	}
	require.NoError(t, conn.CloseWrite())

	require.NoError(t, conn.SetDeadline(past))
	require.NoError(t, conn.Close())
	require.NoError(t, conn.Close())
	_, err = conn.Read(nil)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = conn.Write(b)
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, conn.SetDeadline(time.Time{}), net.ErrClosed)
	require.ErrorIs(t, conn.CloseWrite(), net.ErrClosed)
}

// TestCloseWaitsForCloseWrite, whose handle it would free.
func TestCloseWaitsForCloseWrite(t *testing.T) {
	r := newRaw(nil)
	r.inside = make(chan struct{})
	conn := accept(t, r)
	closed := make(chan error, 1)
	go func() {
		<-r.inside
		closed <- conn.Close()
	}()
	require.NoError(t, conn.CloseWrite())
	require.NoError(t, <-closed)
	require.False(t, r.overtook.Load())
}

// TestConnErrors: those of files are told as those of sockets, which is what the rest
// of the program knows, and all are one *net.OpError.
func TestConnErrors(t *testing.T) {
	for _, c := range []struct{ raw, want error }{
		{syscall.Errno(64), syscall.Errno(10054)},
		{syscall.Errno(1236), syscall.Errno(10053)},
		{&net.OpError{Op: "read", Net: "hvsock", Err: os.NewSyscallError("wsarecv", syscall.Errno(64))}, syscall.Errno(10054)},
		{syscall.Errno(10053), syscall.Errno(10053)},
		{syscall.Errno(5), syscall.Errno(5)},
		{os.ErrClosed, net.ErrClosed},
		{&net.OpError{Op: "read", Err: fmt.Errorf("socket closed: %w", net.ErrClosed)}, net.ErrClosed},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, os.ErrDeadlineExceeded},
	} {
		conn := accept(t, newRaw(c.raw))
		_, read := conn.Read(make([]byte, 1))
		_, write := conn.Write(make([]byte, 1))
		for _, err := range []error{read, write} {
			require.ErrorIs(t, err, c.want)
			op, ok := err.(*net.OpError) //nolint:errorlint // it is one, not in one
			require.True(t, ok)
			require.Equal(t, &theAddr, op.Addr)
			require.NotErrorAs(t, op.Err, new(*net.OpError))
		}
	}
	_, err := accept(t, newRaw(io.EOF)).Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	// What go-winio makes of WSAENOTCONN and WSAESHUTDOWN.
	err = accept(t, newRaw(os.NewSyscallError("shutdown", net.ErrClosed))).CloseWrite()
	require.ErrorIs(t, err, syscall.Errno(10057))
	require.NotErrorIs(t, err, net.ErrClosed)
}

// TestConn: what package net asks of a connection, over TCP.
func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (_, _ net.Conn, stop func(), err error) {
		conn, peer := pair(t)
		return conn, peer, func() { _, _ = conn.Close(), peer.Close() }, nil
	})
}

func listenTCP(t *testing.T) (net.Listener, *net.TCPAddr) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln, ln.Addr().(*net.TCPAddr)
}

func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	ln, addr := listenTCP(t)
	conn, err := dialTCP(t.Context(), t, addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	peer, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = peer.Close() })
	return conn, peer.(*net.TCPConn)
}

// TestHalfClose: the peer reads all that was sent and EOF, and can still answer.
func TestHalfClose(t *testing.T) {
	conn, peer := pair(t)
	long := strings.Repeat("x", 1<<20)
	go func() {
		_, _ = io.WriteString(conn, long)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(peer)
	require.NoError(t, err)
	require.Equal(t, long, string(got))
	_, err = io.WriteString(peer, "late answer")
	require.NoError(t, err)
	require.NoError(t, peer.Close())
	got, err = io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "late answer", string(got))
	n, err := conn.Read(nil)
	require.Zero(t, n)
	require.NoError(t, err)
}

// TestCloseEndsARead, and what comes after it is net.ErrClosed.
func TestCloseEndsARead(t *testing.T) {
	conn, _ := pair(t)
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	require.NoError(t, conn.Close())
	require.ErrorIs(t, <-read, net.ErrClosed)
	require.NoError(t, conn.Close())
	_, err := conn.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, conn.CloseWrite(), net.ErrClosed)
}

func TestDeadlines(t *testing.T) {
	conn, _ := pair(t)
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, conn.SetDeadline(time.Time{}))
	_, err = conn.Write([]byte("x"))
	require.NoError(t, err)
}
