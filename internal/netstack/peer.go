// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A Peer is who is behind an address of the link. Its methods may be called
// concurrently.
type Peer interface {
	// ID tells peers apart, whatever addresses they give themselves: what there is
	// a bounded number of is shared among peers. 0 is who is not known.
	ID() uint64
	// Full is asked before a connection sends much. While too much is on its way to
	// the peer it returns a channel that is closed when that is over, else nil.
	Full() <-chan struct{}
	// Wide reports whether what leads here from the peer holds some megabytes of a
	// connection.
	Wide() bool
}

// peerAt returns who is behind an address of the link, or nil.
func (s *Stack) peerAt(mac packet.MAC) Peer {
	if s.peer == nil || mac == (packet.MAC{}) {
		return nil
	}
	return s.peer(mac)
}

// sender returns the ID of who sent a packet, or 0.
func (s *Stack) sender(pkt *stack.PacketBuffer) uint64 {
	eth := header.Ethernet(pkt.LinkHeader().Slice()) // not there if it never was a frame
	if len(eth) < header.EthernetMinimumSize {
		return 0
	}
	return idOf(s.peerAt(packet.MAC([]byte(eth.SourceAddress()))))
}

// PeerAt returns the ID of who is at an address of the link, or 0.
func (s *Stack) PeerAt(a netip.Addr) uint64 {
	return idOf(s.peerAt(s.linkAddress(netip.Addr{}, a)))
}

func idOf(p Peer) uint64 {
	if p == nil {
		return 0
	}
	return p.ID()
}
