// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Checksum folds b into sum as RFC 1071 has it, and returns the complement. Over
// data that holds its own checksum the result is 0.
func Checksum(sum uint32, b []byte) uint16 { return ^Sum(sum, b) }

// Sum is Checksum without the complement: what a checksum is continued from. Only
// the last of several parts may have an odd length.
func Sum(sum uint32, b []byte) uint16 {
	// The sum does not depend on how many bytes are added at a time, as long as
	// carries come round (RFC 1071, section 2), nor on their order but for a swap
	// at the end.
	acc, carry := uint64(bits.ReverseBytes16(fold(uint64(sum)))), uint64(0)
	for ; len(b) >= 32; b = b[32:] {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
	}
	for ; len(b) >= 8; b = b[8:] {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(last[:]), carry)
	}
	acc, carry = bits.Add64(acc, carry, 0)
	return bits.ReverseBytes16(fold(acc>>32 + acc&0xffff_ffff + carry))
}

// fold adds up the 16-bit words of a sum.
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func pseudoHeader(src, dst netip.Addr, proto uint8, n int) uint32 {
	s, d := src.As4(), dst.As4()
	return uint32(s[0])<<8 + uint32(s[1]) + uint32(s[2])<<8 + uint32(s[3]) +
		uint32(d[0])<<8 + uint32(d[1]) + uint32(d[2])<<8 + uint32(d[3]) + uint32(proto) + uint32(n)
}

// Intact reports whether the checksums of a frame are right: that of an IPv4
// header, and of the TCP segment or UDP datagram behind it unless that is in
// fragments. Frames of another kind are taken to be.
func Intact(frame []byte) bool {
	eth, ok := ParseEthernet(frame)
	if !ok || eth.Type != EtherIPv4 {
		return ok
	}
	ip, ok := ParseIPv4(eth.Payload)
	if !ok || ip.Fragment {
		return ok
	}
	switch ip.Proto {
	case ProtoTCP:
		return Checksum(pseudoHeader(ip.Src, ip.Dst, ProtoTCP, len(ip.Payload)), ip.Payload) == 0
	case ProtoUDP:
		_, ok = ParseUDP(ip) // which knows that there may be none, and where the datagram ends
		return ok
	default:
		return true
	}
}

// IsFragment reports whether a frame is one of several parts of an IPv4 packet.
func IsFragment(frame []byte) bool {
	return len(frame) >= EthernetLen+IPv4Len && binary.BigEndian.Uint16(frame[12:]) == EtherIPv4 &&
		binary.BigEndian.Uint16(frame[EthernetLen+6:])&0x3fff != 0
}
