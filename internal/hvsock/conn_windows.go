// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// A file is what go-winio makes of a handle: input and output that Close and
// deadlines end.
type file interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// A Conn is a connection that [Dial] made. go-winio has such a type, but no way to
// make one of a socket.
type Conn struct {
	file
	remote net.Addr
	socket windows.Handle

	mu     sync.RWMutex // keeps Close from freeing the handle under CloseWrite
	closed bool
}

func newConn(socket windows.Handle, remote net.Addr) (*Conn, error) {
	f, err := winio.NewOpenFile(socket)
	if err != nil {
		return nil, err
	}
	file, ok := f.(file)
	if !ok {
		return nil, errors.ErrUnsupported // a go-winio without deadlines
	}
	return &Conn{file: file, remote: remote, socket: socket}, nil
}

func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	return n, c.opError("read", err)
}

func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	return n, c.opError("write", err)
}

// CloseWrite has the peer read EOF; reading goes on.
func (c *Conn) CloseWrite() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return c.opError("closewrite", net.ErrClosed)
	}
	return c.opError("closewrite", os.NewSyscallError("shutdown", windows.Shutdown(c.socket, windows.SHUT_WR)))
}

// Close ends pending reads and writes and waits for them.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.file.Close()
}

// LocalAddr is a zero address: which of its own addresses the host has used,
// Hyper-V does not say in a way that could be dialled.
func (*Conn) LocalAddr() net.Addr { return &winio.HvsockAddr{} }

// RemoteAddr returns the address that was dialled, a *winio.HvsockAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *Conn) opError(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, os.ErrClosed):
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: c.remote.Network(), Addr: c.remote, Err: err}
}
