// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package packet reads and builds the few headers that are handled on frames
// themselves, before any network stack: Ethernet (DIX), ARP, IPv4, UDP and ICMP.
//
// A parser returns false for whatever is too short, too long or has a wrong
// checksum; what it returns are views of the frame, never copies.
package packet

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// EtherTypes and protocol numbers (IANA).
const (
	EtherIPv4        = 0x0800
	EtherARP         = 0x0806
	EtherVLAN        = 0x8100 // IEEE 802.1Q
	EtherIPv6        = 0x86dd
	EtherServiceVLAN = 0x88a8 // IEEE 802.1ad
	EtherOffload     = 0x88b5 // IEEE 802 local experimental: PROTOCOL, "Offload extension"

	ProtoICMP = 1
	ProtoTCP  = 6
	ProtoUDP  = 17
)

// Header lengths in bytes.
const (
	EthernetLen = 14
	IPv4Len     = 20 // without options
	UDPLen      = 8
	ICMPLen     = 8
)

// MAC is an Ethernet address that can be a map's key.
type MAC [6]byte

// Broadcast is the Ethernet broadcast address.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String returns the address as in "5a:94:ef:e4:0c:ee".
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Multicast reports whether m is a group address, broadcast included.
func (m MAC) Multicast() bool { return m[0]&1 != 0 }

// Ethernet is a frame's header and what follows it.
type Ethernet struct {
	Dst, Src MAC
	Type     uint16
	Payload  []byte
}

// ParseEthernet reads the header of a frame.
func ParseEthernet(frame []byte) (Ethernet, bool) {
	if len(frame) < EthernetLen {
		return Ethernet{}, false
	}
	return Ethernet{
		Dst:     MAC(frame[0:6]),
		Src:     MAC(frame[6:12]),
		Type:    binary.BigEndian.Uint16(frame[12:14]),
		Payload: frame[EthernetLen:],
	}, true
}

// IPv4 is a packet's header and what follows it, without Ethernet padding.
type IPv4 struct {
	Src, Dst netip.Addr
	Proto    uint8
	TTL      uint8
	Fragment bool   // one of several; Payload is then a part
	Header   []byte // with options
	Payload  []byte
}

// ParseIPv4 reads an IPv4 packet (RFC 791) and verifies its header checksum.
func ParseIPv4(b []byte) (IPv4, bool) {
	if len(b) < IPv4Len || b[0]>>4 != 4 {
		return IPv4{}, false
	}
	hl, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if hl < IPv4Len || total < hl || total > len(b) || Checksum(0, b[:hl]) != 0 {
		return IPv4{}, false
	}
	return IPv4{
		Src:      netip.AddrFrom4([4]byte(b[12:16])),
		Dst:      netip.AddrFrom4([4]byte(b[16:20])),
		Proto:    b[9],
		TTL:      b[8],
		Fragment: binary.BigEndian.Uint16(b[6:])&0x3fff != 0, // more fragments, or an offset
		Header:   b[:hl],
		Payload:  b[hl:total],
	}, true
}

// First reports whether Payload begins with what was sent: the packet is whole,
// or the first of its fragments.
func (p IPv4) First() bool { return binary.BigEndian.Uint16(p.Header[6:])&0x1fff == 0 }

// UDP is a datagram.
type UDP struct {
	SrcPort, DstPort uint16
	Payload          []byte
}

// ParseUDP reads the datagram in p (RFC 768) and verifies its checksum.
func ParseUDP(p IPv4) (UDP, bool) {
	b := p.Payload
	if p.Proto != ProtoUDP || p.Fragment || len(b) < UDPLen {
		return UDP{}, false
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < UDPLen || n > len(b) {
		return UDP{}, false
	}
	if b[6]|b[7] != 0 && Checksum(pseudoHeader(p.Src, p.Dst, ProtoUDP, n), b[:n]) != 0 {
		return UDP{}, false
	}
	return UDP{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[UDPLen:n]}, true
}

// ARP is an Ethernet/IPv4 ARP message (RFC 826).
type ARP struct {
	Op                   uint16 // 1: request, 2: reply
	SenderMAC, TargetMAC MAC
	Sender, Target       netip.Addr
}

// ParseARP reads the payload of an ARP frame.
func ParseARP(b []byte) (ARP, bool) {
	if len(b) < 28 || [6]byte(b[:6]) != [6]byte{0, 1, 8, 0, 6, 4} {
		return ARP{}, false
	}
	return ARP{
		Op:        binary.BigEndian.Uint16(b[6:]),
		SenderMAC: MAC(b[8:14]), Sender: netip.AddrFrom4([4]byte(b[14:18])),
		TargetMAC: MAC(b[18:24]), Target: netip.AddrFrom4([4]byte(b[24:28])),
	}, true
}

// Echo is an ICMP echo request or reply (RFC 792).
type Echo struct {
	Reply   bool
	ID, Seq uint16
	Data    []byte
}

// ParseEcho reads the echo message in p and verifies its checksum.
func ParseEcho(p IPv4) (Echo, bool) {
	b := p.Payload
	if p.Proto != ProtoICMP || p.Fragment || len(b) < ICMPLen || b[0] != 0 && b[0] != 8 || b[1] != 0 || Checksum(0, b) != 0 {
		return Echo{}, false
	}
	return Echo{b[0] == 0, binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), b[ICMPLen:]}, true
}
