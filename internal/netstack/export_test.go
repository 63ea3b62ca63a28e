// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// What the tests have to know to make enough connections, or come too late.
const (
	MaxTCPBuffer  = maxTCPBuffer
	AllTCPBuffers = allTCPBuffers
	RoomPatience  = roomPatience
	OrphanWeight  = orphanWeight
	LeastBuffer   = leastBuffer
)

// MaxBuffers returns what the buffers of connections made from now on may become.
func (s *Stack) MaxBuffers() (send, receive int, err error) {
	var w tcpip.TCPSendBufferSizeRangeOption
	var r tcpip.TCPReceiveBufferSizeRangeOption
	for _, opt := range []tcpip.GettableTransportProtocolOption{&w, &r} {
		if err := s.stack.TransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return 0, 0, asError(err)
		}
	}
	return w.Max, r.Max, nil
}

// MayHaveOrphans sets how much connections hold that were closed and have not ended.
func (s *Stack) MayHaveOrphans(bytes int) { s.orphans.max = bytes }

// Orphans returns how much that is, in bytes, for a peer.
func (s *Stack) Orphans(peer uint64) int {
	s.orphans.mu.Lock()
	defer s.orphans.mu.Unlock()
	return s.orphans.table.WeightOf(peer)
}

// The errors of this system, for the tests from outside.
const (
	ErrRefused         = errRefused
	ErrReset           = errReset
	ErrHostUnreachable = errHostUnreachable
	ErrAddrInUse       = errAddrInUse
	ErrPipe            = errPipe
	ErrNotConnected    = errNotConnected
	ErrMessageSize     = errMessageSize
)

// PretendConnections counts some more connections than there are.
func (s *Stack) PretendConnections(n int) error { return s.connections(n) }

// Buffers returns how large those of the connection may be, in bytes.
func (c *Conn) Buffers() (send, receive int64) {
	so := c.ep.SocketOptions()
	return so.GetSendBufferSize(), so.GetReceiveBufferSize()
}

// Probe has f told after each segment that a connection made from now on has
// processed: what of its own is acknowledged, and how much the peer takes.
func (s *Stack) Probe(f func(peer uint16, acked uint32, window int)) {
	s.stack.AddTCPProbe(func(e *stack.TCPEndpointState) { f(e.ID.RemotePort, uint32(e.Sender.SndUna), int(e.Sender.SndWnd)) })
}
