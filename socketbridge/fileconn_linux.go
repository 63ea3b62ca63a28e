// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// fileVsockListener returns nil for another socket.
func fileVsockListener(f *os.File, local unix.Sockaddr) (net.Listener, error) {
	if _, ok := local.(*unix.SockaddrVM); !ok {
		return nil, nil
	}
	ln, err := vsock.FileListener(f) // a copy
	if err != nil {
		return nil, err
	}
	return ln, nil
}

// fileVsockConn returns nil for another socket.
func fileVsockConn(f *os.File, local unix.Sockaddr) (net.Conn, error) {
	at, ok := local.(*unix.SockaddrVM)
	if !ok {
		return nil, nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		fd   int
		peer unix.Sockaddr
		dup  error
	)
	err = raw.Control(func(old uintptr) {
		if peer, dup = unix.Getpeername(int(old)); dup != nil {
			dup = os.NewSyscallError("getpeername", dup)
			return
		}
		// A copy, as for the others: writing to a socket whose peer has gone would end
		// the process if it were descriptor 1 or 2 (package os/signal, SIGPIPE).
		fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
		dup = os.NewSyscallError("fcntl", dup)
	})
	if err := errors.Join(err, dup); err != nil {
		return nil, err
	}
	remote, ok := peer.(*unix.SockaddrVM)
	if err = unix.SetNonblock(fd, true); err != nil { // before NewFile, which then has it polled
		err = os.NewSyscallError("setnonblock", err)
	} else if !ok {
		err = fmt.Errorf("its peer has an address of another kind, %T", peer)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &vsockConn{
		file:   os.NewFile(uintptr(fd), f.Name()),
		local:  &vsock.Addr{ContextID: at.CID, Port: at.Port},
		remote: &vsock.Addr{ContextID: remote.CID, Port: remote.Port},
	}, nil
}

// vsockConn is an inherited vsock connection, a vsock.Conn in all but name: that
// package has no way to make one of a descriptor.
type vsockConn struct {
	file          *os.File
	local, remote *vsock.Addr
	closed        atomic.Bool
}

var _ HalfCloser = (*vsockConn)(nil)

func (c *vsockConn) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	return n, c.opError("read", err)
}

func (c *vsockConn) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	return n, c.opError("write", err)
}

func (c *vsockConn) CloseRead() error  { return c.shutdown(unix.SHUT_RD) }
func (c *vsockConn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

func (c *vsockConn) shutdown(how int) error {
	raw, err := c.file.SyscallConn()
	if err == nil {
		var answer error
		err = raw.Control(func(fd uintptr) { answer = os.NewSyscallError("shutdown", unix.Shutdown(int(fd), how)) })
		if err == nil {
			err = answer
		}
	}
	return c.opError("close", err)
}

// Close may be called again.
func (c *vsockConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.file.Close()
}

func (c *vsockConn) LocalAddr() net.Addr  { return c.local }
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }

func (c *vsockConn) SetDeadline(t time.Time) error { return c.opError("set", c.file.SetDeadline(t)) }
func (c *vsockConn) SetReadDeadline(t time.Time) error {
	return c.opError("set", c.file.SetReadDeadline(t))
}
func (c *vsockConn) SetWriteDeadline(t time.Time) error {
	return c.opError("set", c.file.SetWriteDeadline(t))
}

func (c *vsockConn) SyscallConn() (syscall.RawConn, error) {
	if c.closed.Load() { // the file does not say so here
		return nil, c.opError("syscall-conn", net.ErrClosed)
	}
	raw, err := c.file.SyscallConn()
	return raw, c.opError("syscall-conn", err)
}

func (c *vsockConn) opError(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, unix.ENOTCONN) && op == "read":
		return io.EOF
	case errors.Is(err, os.ErrClosed), c.closed.Load(): // not every error of a closed file is the first
		err = net.ErrClosed
	default:
		if path, ok := errors.AsType[*os.PathError](err); ok { // a socket has no path
			err = path.Err
		}
	}
	return &net.OpError{Op: op, Net: "vsock", Source: c.local, Addr: c.remote, Err: err}
}
