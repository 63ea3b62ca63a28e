// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"math/bits"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// receiveBuffer returns what a receive buffer may have at most to begin with, in bytes.
func (s *Stack) receiveBuffer() int64 {
	s.growth.mu.Lock()
	defer s.growth.mu.Unlock()
	return int64(min(tcpBuffer, 2*s.growth.max))
}

// growth is how large the buffers of TCP connections may become.
type growth struct {
	mu   sync.Mutex
	live int // connections
	max  int // of a send buffer, in bytes; 0: not set yet
}

// connections counts some more, or fewer, and sets what their buffers may become. What has
// grown before stays, and a connection that was opened among many stays a slow one: its
// window scale is from then.
func (s *Stack) connections(more int) error {
	g := &s.growth
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live += more
	// A power of two, so that it does not change all the time.
	most := min(max(allTCPBuffers>>bits.Len(uint(g.live)), leastBuffer), maxTCPBuffer)
	if most == g.max {
		return nil
	}
	g.max = most
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(tcpBuffer, most), Max: most}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(tcpBuffer, 2*most), Max: 2 * most}
	for _, opt := range []tcpip.SettableTransportProtocolOption{&send, &receive} {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return asError(err)
		}
	}
	return nil
}
