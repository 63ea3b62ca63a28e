// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"errors"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// HeaderLen is the size of a [Header], on the wire and in front of a frame of a
// tap with IFF_VNET_HDR.
const HeaderLen = 10

// MaxOffloadLen is the longest that the offload format carries, header included.
const MaxOffloadLen = HeaderLen + packet.EthernetLen + 1<<16 - 1

// Values of a Header (virtio 1.2, 5.1.6).
const (
	NeedsChecksum = 1 // flag: the checksum at CsumStart+CsumOffset holds the sum of the pseudo header only
	GSONone       = 0
	GSOTCPv4      = 1

	MinGSOSize = 48 // what a segment carries at least
)

// A Header is what the offload format says of a frame: the virtio-net header,
// little-endian. The zero Header is that of a frame which needs nothing.
type Header struct {
	Flags, GSOType                         uint8
	HdrLen, GSOSize, CsumStart, CsumOffset uint16
}

// ParseHeader reads the header at the beginning of b, which is long enough. Flags
// that only tell what was done already are left out.
func ParseHeader(b []byte) Header {
	return Header{
		Flags: b[0] & NeedsChecksum, GSOType: b[1],
		HdrLen: binary.LittleEndian.Uint16(b[2:]), GSOSize: binary.LittleEndian.Uint16(b[4:]),
		CsumStart: binary.LittleEndian.Uint16(b[6:]), CsumOffset: binary.LittleEndian.Uint16(b[8:]),
	}
}

// Put writes the header to the beginning of b.
func (h Header) Put(b []byte) {
	b[0], b[1] = h.Flags, h.GSOType
	binary.LittleEndian.PutUint16(b[2:], h.HdrLen)
	binary.LittleEndian.PutUint16(b[4:], h.GSOSize)
	binary.LittleEndian.PutUint16(b[6:], h.CsumStart)
	binary.LittleEndian.PutUint16(b[8:], h.CsumOffset)
}

// MaxPrefixLen is the most that stands in front of a frame on the wire.
const MaxPrefixLen = offloadPrefixLen + HeaderLen

// PutPrefix writes what stands in front of a frame of n bytes to b, which has room
// for MaxPrefixLen, and returns how long that is. In plain format h is left out.
func PutPrefix(b []byte, offload bool, h Header, n int) int {
	if !offload {
		binary.LittleEndian.PutUint16(b, uint16(n))
		return prefixLen
	}
	binary.LittleEndian.PutUint32(b, uint32(HeaderLen+n))
	h.Put(b[offloadPrefixLen:])
	return MaxPrefixLen
}

// ErrHeader is returned for a header that does not fit its frame.
var ErrHeader = errors.New("frame: the offload header does not fit the frame")

// Check reports what is wrong with the header of a frame, of which head is the
// beginning, with all its protocol headers, and n the length: an error that Is
// [ErrHeader]. Every header that comes from a peer has to pass before anything
// else is done with it.
func (h Header) Check(head []byte, n int) error {
	if int(h.HdrLen) > n || !h.simple() && !h.fits(head, n) {
		return ErrHeader
	}
	return nil
}

// Longest returns the length of the longest of the frames that a frame with header
// h, which has passed Check, stands for.
func (h Header) Longest(head []byte, n int) int {
	if h.GSOType == GSONone {
		return n
	}
	c, _ := h.segments(head, n)
	return c.longest()
}

// simple reports whether the frame is what its bytes say.
func (h Header) simple() bool { return h.Flags&NeedsChecksum == 0 && h.GSOType == GSONone }

func (h Header) fits(head []byte, n int) bool {
	at := int(h.CsumStart) + int(h.CsumOffset)
	if h.Flags&NeedsChecksum == 0 || h.CsumStart < packet.EthernetLen || at+2 > len(head) {
		return false
	}
	switch h.GSOType {
	case GSONone:
		// Elsewhere in a TCP segment it would change what was looked at before.
		return !isTCPv4(head) || int(h.CsumStart) == packet.EthernetLen+int(head[packet.EthernetLen]&0xf)*4 && h.CsumOffset == tcpSum
	case GSOTCPv4:
		_, ok := h.segments(head, n)
		return ok
	default:
		return false
	}
}

func isTCPv4(head []byte) bool {
	return len(head) >= packet.EthernetLen+packet.IPv4Len && binary.BigEndian.Uint16(head[12:]) == packet.EtherIPv4 &&
		head[packet.EthernetLen+ipProto] == packet.ProtoTCP
}

const (
	ipLen     = 2 // offsets in an IPv4 header
	ipID      = 4
	ipFlags   = 6
	ipProto   = 9
	ipSum     = 10
	ipSource  = 12
	tcpSeq    = 4 // and in a TCP header
	tcpOffset = 12
	tcpFlags  = 13
	tcpSum    = 16
	tcpMin    = 20
	flagFIN   = 0x01
	flagPSH   = 0x08
	flagCWR   = 0x80
	// maxHeaders is the longest that Ethernet, IPv4 and TCP can be.
	maxHeaders = packet.EthernetLen + 60 + 60
)

// segments says how a TCP super-frame is cut, and whether it is one.
func (h Header) segments(head []byte, n int) (cut cut, ok bool) {
	const ip = packet.EthernetLen
	if len(head) < ip+packet.IPv4Len+tcpMin || binary.BigEndian.Uint16(head[12:]) != packet.EtherIPv4 {
		return cut, false
	}
	tcp := ip + int(head[ip]&0xf)*4
	switch {
	case head[ip]>>4 != 4, tcp < ip+packet.IPv4Len, len(head) < tcp+tcpMin,
		head[ip+ipProto] != packet.ProtoTCP,
		binary.BigEndian.Uint16(head[ip+ipFlags:])&0x3fff != 0, // a fragment
		int(binary.BigEndian.Uint16(head[ip+ipLen:])) != n-ip,
		int(h.CsumStart) != tcp, h.CsumOffset != tcpSum,
		h.GSOSize < MinGSOSize:
		return cut, false
	}
	cut.tcp, cut.headers = tcp, tcp+int(head[tcp+tcpOffset]>>4)*4
	cut.payload, cut.size = n-cut.headers, int(h.GSOSize)
	if cut.headers < tcp+tcpMin || cut.headers > len(head) || cut.payload < 0 {
		return cut, false
	}
	return cut, true
}

// A cut is how a super-frame becomes frames.
type cut struct {
	tcp     int // where the TCP header begins
	headers int // how long all headers are together
	payload int // what is to be divided …
	size    int // … into parts of this
}

func (c cut) count() int { return max(1, (c.payload+c.size-1)/c.size) }

// longest is the length of the first frame, which no other exceeds.
func (c cut) longest() int { return c.headers + min(c.size, c.payload) }

// Complete fills in the checksum of a frame that is not to be segmented, whose
// header has passed Check, and returns the header that it has then.
func (h Header) Complete(f []byte) Header {
	if h.Flags&NeedsChecksum == 0 {
		return h
	}
	sum := packet.Checksum(0, f[h.CsumStart:])
	if sum == 0 {
		sum = 0xffff // 0 means "none" to UDP, and is the same to the others
	}
	binary.BigEndian.PutUint16(f[int(h.CsumStart)+int(h.CsumOffset):], sum)
	return Header{}
}

// A Segmenter turns what only the offload format can carry into frames that anybody
// understands. It has one user at a time; the zero Segmenter is ready.
type Segmenter struct {
	headers [maxHeaders]byte
	pieces  [8][]byte
	parts   [8][]byte
}

// Segment calls yield for each of the frames that a frame with header h, which has
// passed Check, stands for: cut to size, checksums completed. The pieces are those
// of one frame, one after the other, and only valid until yield returns. The first
// of parts holds all protocol headers.
func (s *Segmenter) Segment(h Header, parts [][]byte, yield func(pieces [][]byte)) {
	own := append(s.parts[:0], parts...) // or parts would escape through yield: an allocation for each frame
	switch {
	case h.simple():
		yield(own)
	case h.GSOType == GSONone:
		yield(s.complete(h, own))
	default:
		s.cut(h, own, yield)
	}
}

// complete fills the checksum in, in a copy of what is around it.
func (s *Segmenter) complete(h Header, parts [][]byte) [][]byte {
	n, start := total(parts), int(h.CsumStart)
	field := start + int(h.CsumOffset)
	summed := cursor{parts: parts}
	summed.skip(start)
	sum := ^sumOf(0, summed.take(s.pieces[:0], n-start))
	if sum == 0 {
		sum = 0xffff // 0 means "none" to UDP, and is the same to the others
	}
	fixed := binary.BigEndian.AppendUint16(append(s.headers[:0], parts[0][start:field]...), sum)
	rest := cursor{parts: parts}
	rest.skip(field + 2)
	return rest.take(append(s.pieces[:0], parts[0][:start], fixed), n-field-2)
}

// cut makes TCP segments of a super-frame (RFC 9293; what the options say is the
// same in each).
func (s *Segmenter) cut(h Header, parts [][]byte, yield func(pieces [][]byte)) {
	const ip = packet.EthernetLen
	head, rest := parts[0], cursor{parts: parts}
	c, ok := h.segments(head, total(parts))
	if !ok {
		return // it has not passed Check
	}
	rest.skip(c.headers)
	hdr := s.headers[:copy(s.headers[:], head[:c.headers])]
	seq, id, flags := binary.BigEndian.Uint32(hdr[c.tcp+tcpSeq:]), binary.BigEndian.Uint16(hdr[ip+ipID:]), hdr[c.tcp+tcpFlags]
	pseudo := uint32(packet.Sum(packet.ProtoTCP, hdr[ip+ipSource:ip+packet.IPv4Len]))
	for i, last := 0, c.count()-1; i <= last; i++ {
		n := min(c.size, c.payload-i*c.size)
		f := flags
		if i > 0 {
			f &^= flagCWR
		}
		if i < last {
			f &^= flagFIN | flagPSH
		}
		hdr[c.tcp+tcpFlags] = f
		binary.BigEndian.PutUint32(hdr[c.tcp+tcpSeq:], seq+uint32(i*c.size))
		binary.BigEndian.PutUint16(hdr[ip+ipLen:], uint16(c.headers-ip+n))
		binary.BigEndian.PutUint16(hdr[ip+ipID:], id+uint16(i))
		binary.BigEndian.PutUint16(hdr[ip+ipSum:], 0)
		binary.BigEndian.PutUint16(hdr[ip+ipSum:], packet.Checksum(0, hdr[ip:c.tcp]))
		binary.BigEndian.PutUint16(hdr[c.tcp+tcpSum:], 0)
		pieces := rest.take(append(s.pieces[:0], hdr), n)
		sum := packet.Sum(pseudo+uint32(c.headers-c.tcp+n), hdr[c.tcp:])
		binary.BigEndian.PutUint16(hdr[c.tcp+tcpSum:], ^sumOf(uint32(sum), pieces[1:]))
		yield(pieces)
	}
}

// A cursor walks through the bytes of several slices.
type cursor struct {
	parts [][]byte
	at    int // in the first
}

func (c *cursor) skip(n int) { c.walk(n, func([]byte) {}) }

// take appends the next n bytes to pieces, without copying them.
func (c *cursor) take(pieces [][]byte, n int) [][]byte {
	c.walk(n, func(b []byte) { pieces = append(pieces, b) })
	return pieces
}

func (c *cursor) walk(n int, visit func([]byte)) {
	for n > 0 {
		b := c.parts[0][c.at:]
		if len(b) > n {
			c.at += n
			visit(b[:n])
			return
		}
		if len(b) > 0 {
			visit(b)
		}
		n -= len(b)
		c.parts, c.at = c.parts[1:], 0
	}
}

// sumOf is packet.Sum over pieces of any length.
func sumOf(sum uint32, pieces [][]byte) uint16 {
	odd := false
	for _, p := range pieces {
		if odd && len(p) > 0 {
			sum += uint32(p[0])
			p, odd = p[1:], false
		}
		sum = uint32(packet.Sum(sum, p))
		odd = odd != (len(p)%2 == 1)
	}
	return uint16(sum)
}

func total(parts [][]byte) (n int) {
	for _, p := range parts {
		n += len(p)
	}
	return n
}
