// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A link is the stack's network card: frames in by deliver, out by output. It
// has no goroutine and no queue of its own.
type link struct {
	mtu        atomic.Uint32
	addr       tcpip.LinkAddress
	output     func(dst packet.MAC, parts [][]byte)
	dispatcher atomic.Pointer[stack.NetworkDispatcher] // nil: not attached, or closed
}

var _ stack.LinkEndpoint = (*link)(nil)

// deliver hands a frame to the stack, which gets a copy.
func (l *link) deliver(frame []byte) {
	d := l.dispatcher.Load()
	if d == nil || len(frame) < packet.EthernetLen {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		Payload: buffer.MakeWithView(buffer.NewViewWithData(frame)),
	})
	defer pkt.DecRef()
	l.ParseHeader(pkt)
	(*d).DeliverNetworkPacket(header.Ethernet(pkt.LinkHeader().Slice()).Type(), pkt)
}

// WritePackets implements [stack.LinkWriter].
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	var store [8][]byte
	for _, pkt := range pkts.AsSlice() {
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
		l.output(packet.MAC([]byte(dst)), parts)
		n++
	}
	return n, nil
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
	return stack.CapabilityResolutionRequired
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
