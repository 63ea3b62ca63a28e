// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A link is the stack's network card: frames in by deliver, out by output. It
// has no goroutine and no queue of its own. The card can segment TCP and complete
// its checksums, which is to say that output can; it verifies what comes in.
type link struct {
	mtu        atomic.Uint32
	addr       tcpip.LinkAddress
	output     func(dst packet.MAC, h frame.Header, parts [][]byte)
	own        atomic.Pointer[[]netip.Addr]            // what ARP may speak for
	dispatcher atomic.Pointer[stack.NetworkDispatcher] // nil: not attached, or closed
	unverified atomic.Bool                             // checksums of what is delivered are the stack's to verify
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

// headerView is what the stack pulls its headers from: in a view of their own it
// does not copy the payload for that.
const headerView = 128

// deliver hands a frame to the stack, which gets a copy of head and rest, or keeps
// the latter if it is a view. As a card does, it passes over what is for another.
func (l *link) deliver(f []byte, rest *buffer.View) {
	d := l.dispatcher.Load()
	if d == nil || len(f) < packet.EthernetLen {
		if rest != nil {
			rest.Release()
		}
		return
	}
	// ARP tells an answer to its own question from an announcement by this.
	kind := tcpip.PacketHost
	switch dst := packet.MAC(f[:6]); {
	case dst == packet.Broadcast:
		kind = tcpip.PacketBroadcast
	case dst.Multicast():
		kind = tcpip.PacketMulticast
	case string(dst[:]) != string(l.addr):
		if rest != nil {
			rest.Release()
		}
		return
	}
	head := f[:min(len(f), headerView)]
	payload := buffer.MakeWithView(buffer.NewViewWithData(head))
	if len(f) > len(head) {
		_ = payload.Append(buffer.NewViewWithData(f[len(head):]))
	}
	if rest != nil {
		_ = payload.Append(rest)
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: payload})
	defer pkt.DecRef()
	pkt.PktType = kind
	l.ParseHeader(pkt)
	(*d).DeliverNetworkPacket(header.Ethernet(pkt.LinkHeader().Slice()).Type(), pkt)
}

// WritePackets implements [stack.LinkWriter].
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	var store [8][]byte
	for _, pkt := range pkts.AsSlice() {
		n++
		if pkt.NetworkProtocolNumber == header.ARPProtocolNumber && !l.honest(header.ARP(pkt.NetworkHeader().Slice())) {
			continue
		}
		dst := header.Ethernet(pkt.LinkHeader().Slice()).DestinationAddress()
		parts := store[:0]
		views, offset := pkt.AsViewList()
		for v := views.Front(); v != nil; v = v.Next() {
			b := v.AsSlice()
			if offset >= len(b) { // header room that was not used
				offset -= len(b)
				continue
			}
			parts = append(parts, b[offset:])
			offset = 0
		}
		l.output(packet.MAC([]byte(dst)), offloadHeader(pkt), parts)
	}
	return n, nil
}

// offloadHeader says what is left to do to a packet.
func offloadHeader(pkt *stack.PacketBuffer) (h frame.Header) {
	gso := pkt.GSOOptions
	if gso.Type != stack.GSOTCPv4 || !gso.NeedsCsum {
		return h
	}
	h.Flags = frame.NeedsChecksum
	h.CsumStart = uint16(header.EthernetMinimumSize + len(pkt.NetworkHeader().Slice()))
	h.CsumOffset = gso.CsumOffset
	// A guest may ask for segments so short that no header can say it: it gets
	// longer ones.
	if mss := max(gso.MSS, frame.MinGSOSize); pkt.Data().Size() > int(mss) {
		h.GSOType, h.GSOSize = frame.GSOTCPv4, mss
		h.HdrLen = h.CsumStart + uint16(len(pkt.TransportHeader().Slice()))
	}
	return h
}

// Options of a TCP segment that carries data: timestamps, and SACK blocks now and
// then, which make the last segment of a packet a short one.
const timestampLen = 12

// maxSegments is how much a TCP packet carries: as many whole segments as fit the
// length of an IPv4 packet, so that none leaves a runt.
func (l *link) maxSegments() int {
	const headers = header.IPv4MinimumSize + header.TCPMinimumSize + timestampLen
	mss := max(int(l.mtu.Load())-headers, 1)
	return max((1<<16-1-headers)/mss, 1) * mss
}

// WriteSize is how much is best written to a TCP connection at once: what one
// packet carries.
func (s *Stack) WriteSize() int { return s.link.maxSegments() }

// GSOMaxSize implements [stack.GSOEndpoint].
func (l *link) GSOMaxSize() uint32 {
	return uint32(l.maxSegments()) + header.TCPTotalHeaderMaximumSize + 1 // which the stack takes off again
}

// SupportedGSO implements [stack.GSOEndpoint].
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// honest keeps ARP to the addresses that the stack was given: one that speaks
// from any address would claim them all. A question about a neighbor is asked
// in the name of the first; it reports false for an answer that is not ours to
// give.
func (l *link) honest(h header.ARP) bool {
	own := l.own.Load()
	if !h.IsValid() || own == nil || len(*own) == 0 {
		return false
	}
	if slices.Contains(*own, netip.AddrFrom4([4]byte(h.ProtocolAddressSender()))) {
		return true
	}
	first := (*own)[0].As4()
	copy(h.ProtocolAddressSender(), first[:])
	return h.Op() == header.ARPRequest
}

// AddHeader implements [stack.NetworkLinkEndpoint].
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: l.addr,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements [stack.NetworkLinkEndpoint].
func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// Attach implements [stack.NetworkLinkEndpoint].
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// IsAttached implements [stack.NetworkLinkEndpoint].
func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }

// MTU implements [stack.NetworkLinkEndpoint].
func (l *link) MTU() uint32 { return l.mtu.Load() }

// SetMTU implements [stack.NetworkLinkEndpoint].
func (l *link) SetMTU(mtu uint32) { l.mtu.Store(mtu) }

// MaxHeaderLength implements [stack.NetworkLinkEndpoint].
func (l *link) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements [stack.NetworkLinkEndpoint].
func (l *link) LinkAddress() tcpip.LinkAddress { return l.addr }

// SetLinkAddress implements [stack.NetworkLinkEndpoint]: the address is fixed.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements [stack.NetworkLinkEndpoint].
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	if l.unverified.Load() {
		return stack.CapabilityResolutionRequired
	}
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

// ARPHardwareType implements [stack.NetworkLinkEndpoint].
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// Wait implements [stack.NetworkLinkEndpoint]. The stack calls it with its lock
// held, so it must not block; there is nothing to wait for.
func (l *link) Wait() {}

// Close implements [stack.NetworkLinkEndpoint].
func (l *link) Close() { l.dispatcher.Store(nil) }

// SetOnCloseAction implements [stack.NetworkLinkEndpoint].
func (l *link) SetOnCloseAction(func()) {}
