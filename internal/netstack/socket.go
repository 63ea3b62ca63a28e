// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A socket is what connections, listeners and packet connections have in common:
// an endpoint, deadlines, and a way to wait for either.
type socket struct {
	stack   *Stack
	network string
	ep      tcpip.Endpoint
	wq      *waiter.Queue

	// Each direction has one user at a time; its channel is told that the
	// endpoint may have become ready.
	readMu, writeMu     sync.Mutex
	readable, writable  <-chan struct{}
	readWait, writeWait waiter.Entry
	readBy, writeBy     deadline

	closeOnce sync.Once
	closed    chan struct{}
}

func newSocket(stack *Stack, network string, ep tcpip.Endpoint, wq *waiter.Queue) *socket {
	s := &socket{
		stack: stack, network: network, ep: ep, wq: wq,
		readBy: newDeadline(), writeBy: newDeadline(),
		closed: make(chan struct{}),
	}
	s.readWait, s.readable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	s.writeWait, s.writable = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&s.readWait)
	wq.EventRegister(&s.writeWait)
	return s
}

// Close ends the socket; blocked calls return an error that Is [net.ErrClosed].
func (s *socket) Close() error {
	s.end(s.ep.Close)
	return nil
}

func (s *socket) end(how func()) {
	s.closeOnce.Do(func() {
		close(s.closed)
		s.wq.EventUnregister(&s.readWait)
		s.wq.EventUnregister(&s.writeWait)
		how()
		s.readBy.set(time.Time{}) // timers end with the socket
		s.writeBy.set(time.Time{})
	})
}

// SetDeadline implements [net.Conn].
func (s *socket) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (s *socket) SetReadDeadline(t time.Time) error { return s.setDeadline(&s.readBy, t) }

// SetWriteDeadline implements [net.Conn].
func (s *socket) SetWriteDeadline(t time.Time) error { return s.setDeadline(&s.writeBy, t) }

func (s *socket) setDeadline(d *deadline, t time.Time) error {
	if isClosed(s.closed) {
		return s.opError("set", net.ErrClosed)
	}
	d.set(t)
	if isClosed(s.closed) { // lost a race with Close
		d.set(time.Time{})
	}
	return nil
}

// wait blocks until ready is signalled, and returns why it did not come to that.
func (s *socket) wait(ready <-chan struct{}, d *deadline) error {
	select {
	case <-s.closed:
		return net.ErrClosed
	case <-d.done():
		return os.ErrDeadlineExceeded
	case <-ready:
		return nil
	}
}

// check is wait without waiting.
func (s *socket) check(d *deadline) error {
	if isClosed(s.closed) {
		return net.ErrClosed
	}
	if isClosed(d.done()) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// fault is the error to report for err: whatever went wrong on a closed socket
// went wrong because it is closed, or its stack.
func (s *socket) fault(err tcpip.Error) error {
	if isClosed(s.closed) {
		return net.ErrClosed
	}
	if s.stack.isClosed() {
		return ErrClosed
	}
	return asError(err)
}

// LocalAddr implements [net.Conn].
func (s *socket) LocalAddr() net.Addr {
	a, _ := s.ep.GetLocalAddress()
	return s.netAddr(a)
}

// Addr implements [net.Listener].
func (s *socket) Addr() net.Addr { return s.LocalAddr() }

func (s *socket) netAddr(a tcpip.FullAddress) net.Addr {
	if s.network == "udp" {
		return net.UDPAddrFromAddrPort(addrPort(a))
	}
	return net.TCPAddrFromAddrPort(addrPort(a))
}

func (s *socket) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: s.network, Addr: s.LocalAddr(), Err: err}
}
