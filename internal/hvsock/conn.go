// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A rawConn is what Windows or go-winio gives, and what a Conn is careful with.
type rawConn interface {
	net.Conn
	CloseWrite() error
}

// A Conn is a connection that [Dial] made or a listener of [Listen] accepted. Its
// addresses are those of go-winio.
type Conn struct {
	rawConn

	mu                          sync.RWMutex // also keeps Close from freeing the handle under CloseWrite
	closed                      bool
	readDeadline, writeDeadline time.Time
}

func newConn(raw rawConn) *Conn { return &Conn{rawConn: raw} }

// Read reads nothing into no bytes, which go-winio would panic of.
func (c *Conn) Read(b []byte) (n int, err error) {
	if err = c.usable(&c.readDeadline); err == nil && len(b) > 0 {
		n, err = c.rawConn.Read(b)
	}
	return n, c.opError("read", err)
}

func (c *Conn) Write(b []byte) (n int, err error) {
	if err = c.usable(&c.writeDeadline); err == nil && len(b) > 0 {
		n, err = c.rawConn.Write(b)
	}
	return n, c.opError("write", err)
}

// usable returns why nothing can be begun: of a deadline that is past, go-winio
// tells only what has to wait.
func (c *Conn) usable(deadline *time.Time) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	switch {
	case c.closed:
		return net.ErrClosed
	case !deadline.IsZero() && !time.Now().Before(*deadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// CloseWrite has the peer read EOF; reading goes on.
func (c *Conn) CloseWrite() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return c.opError("closewrite", net.ErrClosed)
	}
	err := c.rawConn.CloseWrite()
	if errors.Is(err, net.ErrClosed) { // go-winio's word for it, though it is the peer that has closed
		err = wsaeNotConn
	}
	return c.opError("closewrite", err)
}

// Close ends pending reads and writes and waits for them.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return c.opError("close", c.rawConn.Close())
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline ends reads at t, also those that wait already.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readDeadline, t, c.rawConn.SetReadDeadline)
}

// SetWriteDeadline ends writes at t, also those that wait already.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writeDeadline, t, c.rawConn.SetWriteDeadline)
}

func (c *Conn) setDeadline(deadline *time.Time, t time.Time, set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed) // go-winio would start a timer
	}
	*deadline = t
	return c.opError("set", set(t))
}

// From winsock2.h.
const (
	wsaeConnAborted = syscall.Errno(10053)
	wsaeConnReset   = syscall.Errno(10054)
	wsaeNotConn     = syscall.Errno(10057)
)

// winsock has the error of a socket for what Windows says of the same socket as a
// file, which is how go-winio asks of one that it has not made itself.
var winsock = map[syscall.Errno]syscall.Errno{
	64:   wsaeConnReset,   // ERROR_NETNAME_DELETED
	1236: wsaeConnAborted, // ERROR_CONNECTION_ABORTED
}

func (c *Conn) opError(op string, err error) error {
	if inner, ok := errors.AsType[*net.OpError](err); ok {
		err = inner.Err
	}
	errno, _ := errors.AsType[syscall.Errno](err)
	switch wsa, ok := winsock[errno]; {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, os.ErrClosed):
		err = net.ErrClosed
	case ok:
		err = wsa
	}
	remote := c.RemoteAddr()
	return &net.OpError{Op: op, Net: remote.Network(), Addr: remote, Err: err}
}
