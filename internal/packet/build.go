// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"net/netip"
)

// defaultTTL is what RFC 1700 recommends.
const defaultTTL = 64

// Link is where a built frame comes from and goes to.
type Link struct{ Src, Dst MAC }

// AppendUDP appends to b a whole frame with one datagram. Both addresses are
// IPv4, and the payload fits 65,507 bytes.
func AppendUDP(b []byte, link Link, src, dst netip.AddrPort, payload []byte) []byte {
	n := UDPLen + len(payload)
	b = appendIPv4(b, link, src.Addr(), dst.Addr(), ProtoUDP, n)
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0, 0)
	b = append(b, payload...)
	sum := Checksum(pseudoHeader(src.Addr(), dst.Addr(), ProtoUDP, n), b[at:])
	if sum == 0 {
		sum = 0xffff // 0 means "none" (RFC 768)
	}
	binary.BigEndian.PutUint16(b[at+6:], sum)
	return b
}

// AppendEcho appends to b a whole frame with one ICMP echo message.
func AppendEcho(b []byte, link Link, src, dst netip.Addr, e Echo) []byte {
	kind := byte(8)
	if e.Reply {
		kind = 0
	}
	var rest [4]byte
	binary.BigEndian.PutUint16(rest[:], e.ID)
	binary.BigEndian.PutUint16(rest[2:], e.Seq)
	return appendICMP(b, link, src, dst, kind, 0, rest, e.Data)
}

// AppendUnreachable appends to b a whole frame with an ICMP "destination
// unreachable" (RFC 792) that quotes the header and the first 8 bytes of what
// could not be delivered.
func AppendUnreachable(b []byte, link Link, src, dst netip.Addr, code uint8, header, payload []byte) []byte {
	quote := append(append(make([]byte, 0, len(header)+8), header...), payload[:min(8, len(payload))]...)
	return appendICMP(b, link, src, dst, 3, code, [4]byte{}, quote)
}

func appendICMP(b []byte, link Link, src, dst netip.Addr, kind, code uint8, rest [4]byte, data []byte) []byte {
	b = appendIPv4(b, link, src, dst, ProtoICMP, ICMPLen+len(data))
	at := len(b)
	b = append(b, kind, code, 0, 0)
	b = append(b, rest[:]...)
	b = append(b, data...)
	binary.BigEndian.PutUint16(b[at+2:], Checksum(0, b[at:]))
	return b
}

// AppendARP appends to b a whole frame with an ARP message.
func AppendARP(b []byte, link Link, a ARP) []byte {
	b = appendEthernet(b, link, EtherARP)
	b = append(b, 0, 1, 8, 0, 6, 4)
	b = binary.BigEndian.AppendUint16(b, a.Op)
	b = append(append(b, a.SenderMAC[:]...), a.Sender.AsSlice()...)
	return append(append(b, a.TargetMAC[:]...), a.Target.AsSlice()...)
}

func appendEthernet(b []byte, link Link, etherType uint16) []byte {
	b = append(append(b, link.Dst[:]...), link.Src[:]...)
	return binary.BigEndian.AppendUint16(b, etherType)
}

func appendIPv4(b []byte, link Link, src, dst netip.Addr, proto uint8, n int) []byte {
	b = appendEthernet(b, link, EtherIPv4)
	at := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(IPv4Len+n))
	b = append(b, 0, 0, 0x40, 0, defaultTTL, proto, 0, 0) // don't fragment
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[at+10:], Checksum(0, b[at:]))
	return b
}
