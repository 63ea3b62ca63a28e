// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A side is one of the two connections of a relay.
type side struct {
	name    string
	conn    HalfCloser
	raw     syscall.RawConn // nil unless it may be used directly
	orderly bool            // unix or vsock: closing it takes nothing back, and the peer is told of CloseRead
	local   bool            // unix, wrapped or not
	broken  error           // a write found it reset: what follows the bytes that are there is no EOF; guarded by the relay's mu
}

func (s *side) init(name string, conn HalfCloser) {
	s.name, s.conn = name, conn
	s.raw, s.orderly = rawOf(conn)
	if c, ok := conn.(interface{ LocalAddr() net.Addr }); ok {
		_, s.local = c.LocalAddr().(*net.UnixAddr)
	}
	if c, ok := conn.(interface{ SetDeadline(time.Time) error }); ok {
		_ = c.SetDeadline(time.Time{}) // whoever set one was not thinking of the pipe
	}
}

// fault says what went wrong where. What net and os wrap around an error number says
// the same again, with less to the point.
func (s *side) fault(op string, err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("socketbridge: pipe: %s %s: %w", op, s.name, err)
}

// gone is the error of bytes that nobody is there to take.
func (s *side) gone() error { return s.fault("write", syscall.EPIPE) }

// closed reports whether err, of a write, means that s's peer has closed. What it had
// sent before can still be read, up to its EOF. What has a connection below, as TLS
// has, says EOF only if the peer did, whatever happened below.
func (s *side) closed(err error) bool {
	_, above := s.conn.(interface{ NetConn() net.Conn })
	return isGone(err) || (s.local || above) && errors.Is(err, syscall.ECONNRESET)
}

// unread reports whether err is what a unix socket says when its peer has closed and
// not read everything. Of what the peer had sent, nothing is missing.
func (s *side) unread(err error) bool { return s.local && errors.Is(err, syscall.ECONNRESET) }

// isGone reports whether a write or CloseWrite failed because the peer has closed. TCP
// says so, in Linux, only if the peer had sent its EOF before it reset.
func isGone(err error) bool {
	for _, e := range hungUp {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.EOF) // vsock says EOF for ENOTCONN
}

// reset sees to it that conn's peer does not take what it has got for all there is,
// where the kind of connection can tell: TCP resets. TLS could not, as its Close says
// that the stream is complete, so the connection below it goes first.
func reset(conn any) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		reset(c.NetConn())
		_ = c.NetConn().Close()
	}
	if c, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = c.SetLinger(0)
	}
}
