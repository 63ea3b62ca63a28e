// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import "gvisor.dev/gvisor/pkg/tcpip/stack"

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

// Probe has f told after each segment that a connection made from now on has
// processed: what of its own is acknowledged, and how much the peer takes.
func (s *Stack) Probe(f func(peer uint16, acked uint32, window int)) {
	s.stack.AddTCPProbe(func(e *stack.TCPEndpointState) { f(e.ID.RemotePort, uint32(e.Sender.SndUna), int(e.Sender.SndWnd)) })
}
