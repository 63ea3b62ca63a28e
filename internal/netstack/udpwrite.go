// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// TakesUDP reports whether a socket takes the datagrams from src to dst.
func (s *Stack) TakesUDP(src, dst netip.AddrPort) bool {
	return s.stack.FindTransportEndpoint(ipv4.ProtocolNumber, udp.ProtocolNumber, stack.TransportEndpointID{
		LocalAddress: address(dst.Addr()), LocalPort: dst.Port(),
		RemoteAddress: address(src.Addr()), RemotePort: src.Port(),
	}, nic) != nil
}

// SendUDP sends datagrams from any address to one peer, in their order. One that
// can not be sent is lost, as any may be.
func (s *Stack) SendUDP(src, dst netip.AddrPort, payloads [][]byte) {
	r, err := s.stack.FindRoute(nic, address(src.Addr()), address(dst.Addr()), ipv4.ProtocolNumber, false)
	if err != nil {
		return
	}
	defer r.Release()
	// The stack does for each datagram what is the same for all: it is asked only where
	// they go, and to do the rest where it does not know, or has to cut one.
	found, known := resolved(r)
	f := new(udpFrame)
	for _, b := range payloads {
		if !known || header.UDPMinimumSize+len(b) > int(r.MTU()) {
			_ = s.WriteUDP(src, dst, b)
			continue
		}
		parts := f.encode(r, s.link.addr, tcpip.LinkAddress(found[:]), uint16(s.lastID.Add(1)), src.Port(), dst.Port(), b)
		s.link.output(found, frame.Header{}, parts)
	}
}

// resolved returns the address on the link of where a route leads, if it is known.
func resolved(r *stack.Route) (packet.MAC, bool) {
	var found tcpip.LinkAddress
	err := r.ResolvedFields(func(res stack.ResolvedFieldsResult) { found = res.RouteInfo.RemoteLinkAddress })
	// An error means that found is about to be written; and the card of a stack that is
	// being closed has none.
	if err != nil || len(found) != len(packet.MAC{}) {
		return packet.MAC{}, false
	}
	return packet.MAC([]byte(found)), true
}

// linkAddress is resolved for an address, and zero if it is not known. A zero from is the
// stack's choice.
func (s *Stack) linkAddress(from, to netip.Addr) packet.MAC {
	if !to.Is4() {
		return packet.MAC{}
	}
	var local tcpip.Address
	if from.Is4() {
		local = address(from)
	}
	r, err := s.stack.FindRoute(nic, local, address(to), ipv4.ProtocolNumber, false)
	if err != nil {
		return packet.MAC{}
	}
	defer r.Release()
	found, _ := resolved(r)
	return found
}

// A udpFrame is room for the headers and the parts of a frame.
type udpFrame struct {
	headers [header.EthernetMinimumSize + header.IPv4MinimumSize + header.UDPMinimumSize]byte
	parts   [2][]byte
}

func (f *udpFrame) encode(r *stack.Route, from, to tcpip.LinkAddress, id, src, dst uint16, payload []byte) [][]byte {
	const ipAt, udpAt = header.EthernetMinimumSize, header.EthernetMinimumSize + header.IPv4MinimumSize
	header.Ethernet(f.headers[:]).Encode(&header.EthernetFields{SrcAddr: from, DstAddr: to, Type: ipv4.ProtocolNumber})
	ip := header.IPv4(f.headers[ipAt:udpAt])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(f.headers) - ipAt + len(payload)),
		ID:          id, // a router behind the guest may have to cut it
		TTL:         r.DefaultTTL(),
		Protocol:    uint8(udp.ProtocolNumber),
		SrcAddr:     r.LocalAddress(),
		DstAddr:     r.RemoteAddress(),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	encodeUDP(f.headers[udpAt:], r, src, dst, payload)
	f.parts = [2][]byte{f.headers[:], payload}
	return f.parts[:]
}

func encodeUDP(u header.UDP, r *stack.Route, src, dst uint16, payload []byte) {
	length := uint16(header.UDPMinimumSize + len(payload))
	u.Encode(&header.UDPFields{SrcPort: src, DstPort: dst, Length: length})
	sum := r.PseudoHeaderChecksum(udp.ProtocolNumber, length)
	if sum = ^u.CalculateChecksum(foldPayload(sum, payload)); sum == 0 {
		sum = 0xffff // 0 means "none" (RFC 768)
	}
	u.SetChecksum(sum)
}
