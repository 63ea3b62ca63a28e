// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/dhcpserver"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Why a frame of a guest was dropped.
const (
	dropShort     = iota // shorter than an Ethernet header
	dropLong             // longer than the MTU allows
	dropReserved         // EtherType of the offload extension, out of place
	dropSource           // source MAC is a group's, nobody's, the gateway's or another guest's
	dropSpoofed          // ARP, DHCP or IP in the name of the gateway or another guest, or from outside the subnet
	dropTagged           // there are no VLANs here
	dropIPv6             // router advertisements, and whatever has extension headers
	dropTableFull        // not dropped: the MAC was not learned
	dropEcho             // ICMP that nobody answers truthfully
	dropOffload          // an offload header that does not fit its frame, or a super-frame for nobody
	dropReasons
)

var dropNames = [dropReasons]string{"short", "long", "reserved", "source", "spoofed", "tagged", "ipv6", "macTableFull", "icmp", "offload"}

const (
	bootpServer = 67
)

func (p *port) drop(reason int) { p.drops[reason].Add(1) }

// ingress takes one frame of a guest to where it goes. Every byte of it is the
// guest's: nothing is read before its length is checked.
func (s *Switch) ingress(p *port, h frame.Header, f []byte, now time.Time) {
	eth, ok := packet.ParseEthernet(f)
	switch {
	case !ok:
		p.drop(dropShort)
		return
	case h.Check(f, len(f)) != nil:
		p.drop(dropOffload)
		return
	case h.Longest(f, len(f)) > s.net.maxFrame:
		p.drop(dropLong)
		return
	case eth.Type == packet.EtherOffload:
		p.drop(dropReserved)
		return
	case eth.Src.Multicast() || eth.Src == (packet.MAC{}) || eth.Src == s.net.gatewayMAC:
		p.drop(dropSource)
		return
	case !s.cam.learn(eth.Src, p, now):
		p.drop(dropSource)
		s.notItsOwn(p, eth.Src)
		return
	}
	if h.GSOType == frame.GSONone && !isTCP(eth) { // what is answered here has to be whole
		h = h.Complete(f)
	}
	s.captured(int(p.id), true, h, f)

	toGateway := eth.Dst == s.net.gatewayMAC
	switch eth.Type {
	case packet.EtherARP:
		if a, ok := packet.ParseARP(eth.Payload); !ok || s.foreign(a.Sender, eth.Src, now) {
			p.drop(dropSpoofed)
			return
		}
	case packet.EtherIPv4:
		if s.ingressIPv4(p, eth, toGateway, now) {
			return
		}
	case packet.EtherIPv6:
		if !harmlessIPv6(eth.Payload) {
			p.drop(dropIPv6)
			return
		}
	case packet.EtherVLAN, packet.EtherServiceVLAN:
		// A tag of no VLAN is no tag to Linux: a way around the checks above.
		p.drop(dropTagged)
		return
	}
	p.took(len(f), now)
	switch {
	case toGateway:
		p.inlet.Deliver(h, f)
	case eth.Dst.Multicast():
		s.flood(p, h, f)
		if eth.Type == packet.EtherARP {
			// Nothing else: the stack, which accepts any address, would take
			// a packet in a broadcast frame for one to forward, or to answer.
			s.stack.Deliver(f)
		}
	default:
		if to := s.cam.lookup(eth.Dst); to == nil {
			s.flood(p, h, f)
		} else if to != p {
			to.send(h, f)
		}
	}
}

// notItsOwn tells, once for a connection, that its guest has the MAC of another. It
// looks like a network that loses everything.
func (s *Switch) notItsOwn(p *port, mac packet.MAC) {
	holder := s.cam.lookup(mac)
	if holder == nil || p.misled || holder.guest == p.guest { // what is left of its last connection
		return
	}
	p.misled = true
	err := fmt.Errorf("hostswitch: guest %q has the MAC %s of guest %q, and is not heard: give each its own, or the same Port.Name if they are one", p.name, mac, holder.name)
	s.log.Warn("frames of a guest are dropped", "peer", p.name, "error", err)
	s.events.emit(Event{Kind: Refused, Peer: p.name, Err: err})
}

// took counts a frame that is a valid one.
func (p *port) took(n int, now time.Time) {
	p.framesIn.Add(1)
	p.bytesIn.Add(uint64(n))
	if p.lastFrame.Swap(now.UnixNano()) == 0 {
		close(p.heard)
	}
}

// ingressIPv4 handles what is answered on the frame itself, and drops what a
// guest must not send. It reports whether the frame needs nothing more.
func (s *Switch) ingressIPv4(p *port, eth packet.Ethernet, toGateway bool, now time.Time) bool {
	ip, ok := packet.ParseIPv4(eth.Payload)
	if !ok {
		p.drop(dropShort)
		return true
	}
	// The ports stand in the first fragment, which no datagram is complete
	// without.
	if ip.Proto == packet.ProtoUDP && ip.First() && len(ip.Payload) >= packet.UDPLen {
		src, dst := binary.BigEndian.Uint16(ip.Payload), binary.BigEndian.Uint16(ip.Payload[2:])
		if dst == bootpServer && (toGateway || eth.Dst.Multicast()) {
			s.serveDHCP(p, eth, ip, now)
			return true
		}
		if src == bootpServer { // there is one DHCP server here
			p.drop(dropSpoofed)
			return true
		}
	}
	if s.foreign(ip.Src, eth.Src, now) {
		p.drop(dropSpoofed)
		return true
	}
	if !toGateway {
		return false
	}
	if !s.net.Subnet.Prefix.Contains(ip.Src) {
		p.drop(dropSpoofed)
		return true
	}
	if ip.Proto == packet.ProtoICMP && !s.own(ip.Dst) {
		// The stack would answer any echo itself, be the destination alive or
		// not; fragments of one included.
		if echo, ok := packet.ParseEcho(ip); ok && !echo.Reply {
			p.took(packet.EthernetLen+len(eth.Payload), now)
			s.forwardEcho(p, ip, echo)
		} else {
			p.drop(dropEcho)
		}
		return true
	}
	if ip.Proto == packet.ProtoUDP && s.outboundMore(ip, now) {
		p.took(packet.EthernetLen+len(eth.Payload), now)
		return true
	}
	return false
}

// serveDHCP answers a DHCP datagram with a frame of its own.
func (s *Switch) serveDHCP(p *port, eth packet.Ethernet, ip packet.IPv4, now time.Time) {
	udp, ok := packet.ParseUDP(ip)
	if !ok {
		p.drop(dropShort)
		return
	}
	p.took(packet.EthernetLen+len(eth.Payload), now)
	reply, ok := s.dhcp.Handle(p.id, net.HardwareAddr(eth.Src[:]), udp.Payload)
	if !ok {
		return
	}
	dst := packet.MAC(reply.DstMAC)
	f := packet.AppendUDP(nil, packet.Link{Src: s.net.gatewayMAC, Dst: dst},
		netip.AddrPortFrom(s.net.Subnet.Gateway, bootpServer), reply.Dst, reply.Payload)
	s.capture.Frame(int(p.id), false, f)
	p.send(frame.Header{}, f)
	if reply.Lease != nil {
		s.leased(p, *reply.Lease, reply.Renewed)
	}
}

// leased tells of a new lease, and warns when it is not the address that the
// forwards of this host go to: a guest with another MAC than the configured one
// is up and well but nothing reaches it.
func (s *Switch) leased(p *port, l dhcpserver.Lease, renewed bool) {
	if !renewed {
		s.log.Info("lease", "address", l.Addr, "mac", l.MAC.String(), "peer", p.name)
		s.events.emit(Event{Kind: Leased, Peer: p.name})
	}
	if l.Static {
		return
	}
	for addr, mac := range s.net.Leases {
		if s.cam.lookup(packet.MAC(mac)) != nil || !s.forwardsTo(addr) || !p.troubles.Allow() {
			continue
		}
		err := &LeaseMismatchError{MAC: l.MAC, Addr: l.Addr, Reserved: addr, ReservedFor: mac}
		s.log.Warn("forwards do not reach this guest", "peer", p.name, "error", err)
		s.events.emit(Event{Kind: LeaseMismatch, Peer: p.name, Err: err})
	}
}

// harmlessIPv6 reports whether a packet is not one by which a guest makes itself
// the router of another: router advertisement or redirect (RFC 4861), seen or
// hidden behind an extension header (RFC 7113). The gateway speaks no IPv6.
func harmlessIPv6(b []byte) bool {
	const header, routerAdvertisement, redirect, icmpv6 = 40, 134, 137, 58
	if len(b) <= header {
		return false
	}
	switch b[6] {
	case packet.ProtoTCP, packet.ProtoUDP:
		return true
	case icmpv6:
		return b[header] != routerAdvertisement && b[header] != redirect
	default:
		return false
	}
}

// foreign reports whether an address is not for mac to speak from: it is the
// gateway's, or leased to another guest that is there.
func (s *Switch) foreign(a netip.Addr, mac packet.MAC, now time.Time) bool {
	if s.own(a) {
		return true
	}
	holder, leased := s.dhcp.Owner(a, now)
	return leased && holder != mac && s.cam.lookup(holder) != nil
}

// own reports whether the gateway answers for an address.
func (s *Switch) own(a netip.Addr) bool {
	if a == s.net.Subnet.Gateway {
		return true
	}
	_, nat := s.net.NAT[a]
	return nat && s.net.Subnet.Prefix.Contains(a)
}

// flood sends a frame to every port but from, which may be nil. It is multiplied,
// and so gives way to what is meant for one; a super-frame, which would be many times
// many, is for nobody who was ever heard, and is not sent at all.
func (s *Switch) flood(from *port, h frame.Header, parts ...[]byte) {
	if h.GSOType != frame.GSONone {
		if from != nil {
			from.drop(dropOffload)
		}
		return
	}
	for _, p := range *s.ports.Load() {
		if p != from {
			p.count(p.queue.PutSpare(h, parts...), parts)
		}
	}
}

// peer is netstack.Config's: the guest behind an address.
func (s *Switch) peer(mac packet.MAC) netstack.Peer {
	if p := s.cam.lookup(mac); p != nil {
		return p
	}
	return nil
}

// egress takes a frame of the stack to its port.
func (s *Switch) egress(dst packet.MAC, h frame.Header, parts [][]byte) {
	to := s.cam.lookup(dst)
	port := 0
	if to != nil {
		port = int(to.id)
	}
	s.captured(port, false, h, parts...)
	if to != nil {
		to.send(h, parts...)
		return
	}
	s.flood(nil, h, parts...)
}
