// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
)

// A stream is TCP data as gopacket makes frames of it: what it says of a part is
// what the Segmenter has to say.
type stream struct {
	ip   layers.IPv4
	tcp  layers.TCP
	data []byte
}

// newStream has odd numbers wherever it can and the options of a Linux connection.
func newStream(data []byte, options ...layers.TCPOption) *stream {
	return &stream{
		ip: layers.IPv4{
			Version: 4, TTL: 63, TOS: 3, Id: 0x1234, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolTCP,
			SrcIP: []byte{192, 168, 127, 3}, DstIP: []byte{10, 255, 0, 9},
		},
		tcp:  layers.TCP{SrcPort: 40001, DstPort: 443, Seq: 0x01020304, Ack: 0xfffefdfc, ACK: true, Window: 501, Options: options},
		data: data,
	}
}

var timestamps = []layers.TCPOption{
	{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
	{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
}

// part is the frame with the data of from to to, one of those of size bytes.
func (s *stream) part(t testing.TB, from, to, size int) []byte {
	t.Helper()
	ip, tcp := s.ip, s.tcp
	ip.Id += uint16(from / size)
	tcp.Seq += uint32(from)
	tcp.CWR = tcp.CWR && from == 0
	tcp.FIN = tcp.FIN && to == len(s.data)
	tcp.PSH = tcp.PSH && to == len(s.data)
	require.NoError(t, tcp.SetNetworkLayerForChecksum(&ip))
	return serialize(t, layers.EthernetTypeIPv4, &ip, &tcp, gopacket.Payload(s.data[from:to]))
}

// segments are the frames that the super-frame stands for.
func (s *stream) segments(t testing.TB, size int) (frames [][]byte) {
	for from := 0; from == 0 || from < len(s.data); from += size {
		frames = append(frames, s.part(t, from, min(from+size, len(s.data)), size))
	}
	return frames
}

// super is one frame with all the data, and its header. The checksum is that of
// the pseudo header, as a kernel leaves it.
func (s *stream) super(t testing.TB, size int) (frame.Header, []byte) {
	f := s.part(t, 0, len(s.data), 1<<20)
	tcp := 14 + int(f[14]&15)*4
	headers := tcp + int(f[tcp+12]>>4)*4
	binary.BigEndian.PutUint16(f[tcp+16:], pseudo(f, tcp))
	return frame.Header{
		Flags: frame.NeedsChecksum, GSOType: frame.GSOTCPv4, HdrLen: uint16(headers), GSOSize: uint16(size),
		CsumStart: uint16(tcp), CsumOffset: 16,
	}, f
}

// pseudo is the sum of the pseudo header of an IPv4 frame.
func pseudo(f []byte, transport int) uint16 {
	words := slices.Concat(f[26:34], []byte{0, f[23]}, binary.BigEndian.AppendUint16(nil, uint16(len(f)-transport)))
	return wordSum(words)
}

// wordSum is RFC 1071 word by word.
func wordSum(b []byte) uint16 {
	sum := 0
	for i, c := range b {
		sum += int(c) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func serialize(t testing.TB, etherType layers.EthernetType, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: etherType}
	b := gopacket.NewSerializeBuffer()
	require.NoError(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append([]gopacket.SerializableLayer{eth}, l...)...))
	// gopacket pads to 60 bytes, which offload does not meet.
	f := b.Bytes()
	if etherType == layers.EthernetTypeIPv4 {
		f = f[:14+int(binary.BigEndian.Uint16(f[16:]))]
	}
	return slices.Clone(f)
}

// split cuts b after each of the lengths.
func split(b []byte, lengths ...int) (parts [][]byte) {
	for _, n := range lengths {
		n = min(n, len(b))
		parts, b = append(parts, b[:n:n]), b[n:]
	}
	return append(parts, b)
}

// segment returns copies of what the Segmenter yields, and proves that it left
// what it was given as it was.
func segment(t testing.TB, s *frame.Segmenter, h frame.Header, parts [][]byte) (frames [][]byte) {
	t.Helper()
	given := slices.Concat(parts...)
	require.NoError(t, h.Check(parts[0], len(given)))
	s.Segment(h, parts, func(pieces [][]byte) { frames = append(frames, slices.Concat(pieces...)) })
	require.True(t, bytes.Equal(given, slices.Concat(parts...)), "the frame was changed")
	return frames
}

func TestHeaderIsLittleEndian(t *testing.T) {
	h := frame.Header{Flags: 1, GSOType: 1, HdrLen: 0x0203, GSOSize: 0x0405, CsumStart: 0x0607, CsumOffset: 0x0809}
	wire := []byte{1, 1, 3, 2, 5, 4, 7, 6, 9, 8}
	b := make([]byte, frame.HeaderLen)
	h.Put(b)
	require.Equal(t, wire, b)
	require.Equal(t, h, frame.ParseHeader(wire))
	wire[0] = 0xff // DATA_VALID and what else there may be
	require.Equal(t, h, frame.ParseHeader(wire))
	wire[0] = 0xfe
	require.Zero(t, frame.ParseHeader(wire).Flags)
}

func TestCheckTakesWhatAKernelSends(t *testing.T) {
	for name, data := range map[string]int{"none": 0, "little": 1, "one segment": 1448, "many": 60000} {
		h, f := newStream(pattern(1, data), timestamps...).super(t, 1448)
		require.NoError(t, h.Check(f, len(f)), name)
		require.NoError(t, h.Check(f[:h.HdrLen], len(f)), "%s, headers only", name)
		h.GSOType, h.GSOSize = frame.GSONone, 0
		require.NoError(t, h.Check(f[:h.HdrLen], len(f)), "%s, checksum", name)
	}
	h, f := newStream(pattern(1, 65495)).super(t, 65535) // the longest there is
	require.Len(t, f, 65549)
	require.NoError(t, h.Check(f, len(f)))
	for _, n := range []int{0, 1, 13, 65549} {
		require.NoError(t, frame.Header{}.Check(make([]byte, n), n))
	}
}

func TestCheckRefuses(t *testing.T) {
	const tcp = 14 + 24 // behind IP options
	for name, spoil := range map[string]func(h *frame.Header, f []byte){
		"UDP, old":              func(h *frame.Header, _ []byte) { h.GSOType = 3 },
		"TCPv6":                 func(h *frame.Header, _ []byte) { h.GSOType = 4 },
		"UDP":                   func(h *frame.Header, _ []byte) { h.GSOType = 5 },
		"TCPv4 with ECN":        func(h *frame.Header, _ []byte) { h.GSOType = 0x81 },
		"ECN alone":             func(h *frame.Header, _ []byte) { h.GSOType = 0x80 },
		"unknown type":          func(h *frame.Header, _ []byte) { h.GSOType = 2 },
		"segments, no checksum": func(h *frame.Header, _ []byte) { h.Flags = 0 },
		"gso_size 0":            func(h *frame.Header, _ []byte) { h.GSOSize = 0 },
		"gso_size 47":           func(h *frame.Header, _ []byte) { h.GSOSize = 47 },
		"hdr_len beyond":        func(h *frame.Header, f []byte) { h.HdrLen = uint16(len(f) + 1) },
		"csum_start 0":          func(h *frame.Header, _ []byte) { h.CsumStart = 0 },
		"csum_start 13":         func(h *frame.Header, _ []byte) { h.CsumStart = 13 },
		"csum_start at IP":      func(h *frame.Header, _ []byte) { h.CsumStart = 14 },
		"csum_start early":      func(h *frame.Header, _ []byte) { h.CsumStart-- },
		"csum_start late":       func(h *frame.Header, _ []byte) { h.CsumStart++ },
		"csum_start beyond":     func(h *frame.Header, f []byte) { h.CsumStart = uint16(len(f)) },
		"csum_start far beyond": func(h *frame.Header, _ []byte) { h.CsumStart = 0xffff },
		"csum_offset of UDP":    func(h *frame.Header, _ []byte) { h.CsumOffset = 6 },
		"csum_offset 17":        func(h *frame.Header, _ []byte) { h.CsumOffset = 17 },
		"csum_offset beyond":    func(h *frame.Header, f []byte) { h.CsumOffset = uint16(len(f)) - tcp - 1 },
		"offsets that overflow": func(h *frame.Header, _ []byte) { h.CsumStart, h.CsumOffset = 0xffff, 0xffff },
		"EtherType IPv6":        func(_ *frame.Header, f []byte) { f[12], f[13] = 0x86, 0xdd },
		"EtherType VLAN":        func(_ *frame.Header, f []byte) { f[12], f[13] = 0x81, 0 },
		"version 6":             func(_ *frame.Header, f []byte) { f[14] = 0x66 },
		"IHL 0":                 func(_ *frame.Header, f []byte) { f[14] = 0x40 },
		"IHL 4":                 func(_ *frame.Header, f []byte) { f[14] = 0x44 },
		"IHL 5":                 func(_ *frame.Header, f []byte) { f[14] = 0x45 },
		"IHL 4, believed": func(h *frame.Header, f []byte) {
			f[14], f[14+16+12] = 0x44, 0x50
			h.CsumStart = 14 + 16
		},
		"IHL 15":            func(_ *frame.Header, f []byte) { f[14] = 0x4f },
		"total length 0":    func(_ *frame.Header, f []byte) { f[16], f[17] = 0, 0 },
		"total length less": func(_ *frame.Header, f []byte) { f[17]-- },
		"total length more": func(_ *frame.Header, f []byte) { f[17]++ },
		"more fragments":    func(_ *frame.Header, f []byte) { f[20] |= 0x20 },
		"a fragment, high":  func(_ *frame.Header, f []byte) { f[20] |= 0x10 },
		"a fragment, low":   func(_ *frame.Header, f []byte) { f[21] |= 1 },
		"UDP in IP":         func(_ *frame.Header, f []byte) { f[23] = 17 },
		"ICMP in IP":        func(_ *frame.Header, f []byte) { f[23] = 1 },
		"doff 0":            func(_ *frame.Header, f []byte) { f[tcp+12] = 0 },
		"doff 4":            func(_ *frame.Header, f []byte) { f[tcp+12] = 0x40 },
		"doff beyond":       func(_ *frame.Header, f []byte) { f[tcp+12] = 0xf0 },
	} {
		s := newStream(pattern(1, 20))
		s.ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
		h, f := s.super(t, 48)
		require.NoError(t, h.Check(f, len(f)))
		spoil(&h, f)
		require.ErrorIs(t, h.Check(f, len(f)), frame.ErrHeader, name)
	}
	for _, h := range []frame.Header{ // what is said of a checksum alone
		{CsumStart: 0}, {CsumStart: 13}, {CsumStart: 13, CsumOffset: 16}, {CsumStart: 98, CsumOffset: 1}, {CsumStart: 99}, {CsumStart: 100},
		{CsumStart: 34, CsumOffset: 65}, {CsumStart: 65535, CsumOffset: 65535}, {CsumStart: 34, CsumOffset: 65535 - 33}, {CsumStart: 34, HdrLen: 101},
	} {
		h.Flags = frame.NeedsChecksum
		require.ErrorIs(t, h.Check(make([]byte, 100), 100), frame.ErrHeader, "%+v", h)
	}
	require.ErrorIs(t, frame.Header{HdrLen: 101}.Check(make([]byte, 100), 100), frame.ErrHeader)
	require.NoError(t, frame.Header{HdrLen: 100}.Check(make([]byte, 100), 100))
}

// What is not there cannot be read, however long the frame is said to be.
func TestCheckOfTruncatedHeaders(t *testing.T) {
	s := newStream(pattern(1, 5000), timestamps...)
	s.ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	h, f := s.super(t, 1448)
	for n := range int(h.HdrLen) {
		require.ErrorIs(t, h.Check(f[:n:n], len(f)), frame.ErrHeader, "%d bytes of headers", n)
		require.ErrorIs(t, h.Check(f[:n:n], n), frame.ErrHeader, "%d bytes", n)
	}
	sum := frame.Header{Flags: frame.NeedsChecksum, CsumStart: 14, CsumOffset: 100}
	require.ErrorIs(t, sum.Check(make([]byte, 115), 115), frame.ErrHeader)
	require.NoError(t, sum.Check(make([]byte, 116), 116))
}

func TestSegmentsAreThoseOfAnother(t *testing.T) {
	var s frame.Segmenter // one for all: nothing stays from one frame to the next
	random := rand.New(rand.NewPCG(1, 2))
	for name, change := range map[string]func(*stream){
		"plain":      func(*stream) {},
		"timestamps": func(s *stream) { s.tcp.Options = timestamps },
		"all options": func(s *stream) {
			s.tcp.Options = []layers.TCPOption{{OptionType: 254, OptionLength: 40, OptionData: pattern(3, 38)}}
			s.ip.Options = []layers.IPv4Option{{OptionType: 30, OptionLength: 40, OptionData: pattern(4, 38)}}
		},
		"FIN":            func(s *stream) { s.tcp.FIN = true },
		"PSH":            func(s *stream) { s.tcp.PSH = true },
		"CWR":            func(s *stream) { s.tcp.CWR = true },
		"all flags":      func(s *stream) { s.tcp.FIN, s.tcp.PSH, s.tcp.CWR, s.tcp.ECE, s.tcp.URG = true, true, true, true, true },
		"IP ID wraps":    func(s *stream) { s.ip.Id = 0xffff },
		"sequence wraps": func(s *stream) { s.tcp.Seq = 0xffff_ff00 },
		"no DF, no ID":   func(s *stream) { s.ip.Flags, s.ip.Id = 0, 0 },
		"ones":           func(s *stream) { s.data = bytes.Repeat([]byte{0xff}, len(s.data)) },
		"zeros":          func(s *stream) { clear(s.data) },
	} {
		for _, size := range []int{48, 49, 536, 1447, 1448, 65535} {
			for _, n := range []int{0, 1, 2, size - 1, size, size + 1, 2*size - 1, 2 * size, 5*size + 3, 65400} {
				c := newStream(pattern(n, min(n, 65400)))
				change(c)
				h, f := c.super(t, size)
				if len(f) > 65549 || n > 10000 && name != "plain" && name != "all flags" {
					continue
				}
				want := c.segments(t, size)
				headers := int(h.HdrLen)
				for _, parts := range [][][]byte{
					{f},
					split(f, headers),
					split(f, headers, 0, 1, 0, 3),
					split(f, headers+random.IntN(len(f)-headers+1), random.IntN(1000), random.IntN(1000)),
					split(f, append([]int{headers}, slices.Repeat([]int{11}, 20)...)...), // more parts than there is room for at first
				} {
					what := fmt.Sprintf("%s, %d bytes by %d, %d parts", name, n, size, len(parts))
					got := segment(t, &s, h, parts)
					require.Len(t, got, len(want), what)
					require.Equal(t, len(want[0]), h.Longest(parts[0], len(f)), what)
					for i := range want {
						require.Equal(t, want[i], got[i], "%s, segment %d", what, i)
					}
				}
			}
		}
	}
}

func TestSegmentsOfAFrameSplitAnywhere(t *testing.T) {
	c := newStream(pattern(1, 151), timestamps...)
	h, f := c.super(t, 50)
	want := c.segments(t, 50)
	var s frame.Segmenter
	for first := int(h.HdrLen); first <= len(f); first++ {
		for second := range len(f) - first + 1 {
			require.Equal(t, want, segment(t, &s, h, split(f, first, second)), "%d, %d", first, second)
		}
	}
}

// An MTU of 65,520 leaves odd sums in the middle of pieces that are long.
func TestLongestSegments(t *testing.T) {
	var s frame.Segmenter
	for _, size := range []int{65535, 65495, 65494, 32749, 32748} {
		c := newStream(pattern(9, 65495))
		h, f := c.super(t, size)
		want := c.segments(t, size)
		for _, cut := range []int{54, 55, 1001, 40000} {
			got := segment(t, &s, h, split(f, cut, 777, 1))
			require.Len(t, got, len(want))
			for i := range want {
				require.True(t, bytes.Equal(want[i], got[i]), "size %d, cut at %d, segment %d", size, cut, i)
			}
		}
	}
}

// A frame that says nothing else of itself is handed on as it is.
func TestSegmentOfAnyOtherFrame(t *testing.T) {
	var s frame.Segmenter
	for _, n := range []int{1, 14, 60, 65549} {
		f := pattern(n, n)
		require.Equal(t, n, frame.Header{}.Longest(f[:min(n, 14)], n))
		require.Equal(t, [][]byte{f}, segment(t, &s, frame.Header{GSOSize: 1, CsumStart: 3}, split(f, n/2, n/3)))
	}
}

// A checksum anywhere else than where TCP has it would change what was looked at.
func TestChecksumOfASegmentIsInItsPlace(t *testing.T) {
	for _, options := range []int{0, 1, 10} {
		s := newStream(pattern(1, 100))
		for range 4 * options {
			s.ip.Options = append(s.ip.Options, layers.IPv4Option{OptionType: 1})
		}
		f := s.part(t, 0, 100, 1<<20)
		tcp := 14 + 20 + 4*options
		for start := range len(f) {
			for offset := range 40 {
				h := frame.Header{Flags: frame.NeedsChecksum, CsumStart: uint16(start), CsumOffset: uint16(offset)}
				if start == tcp && offset == 16 {
					require.NoError(t, h.Check(f, len(f)))
				} else {
					require.ErrorIs(t, h.Check(f, len(f)), frame.ErrHeader, "%d+%d", start, offset)
				}
			}
		}
		udp := slices.Clone(f)
		udp[23] = 17
		h := frame.Header{Flags: frame.NeedsChecksum, CsumStart: uint16(tcp), CsumOffset: 6}
		require.NoError(t, h.Check(udp, len(udp)))
		require.ErrorIs(t, h.Check(f, len(f)), frame.ErrHeader)
	}
}

// A header that has not passed Check is a mistake of this end's, and costs a frame,
// not the process.
func TestSegmentOfAHeaderThatDoesNotFit(t *testing.T) {
	for name, spoil := range map[string]func(h *frame.Header, f []byte){
		"gso_size 0":  func(h *frame.Header, _ []byte) { h.GSOSize = 0 },
		"gso_size 47": func(h *frame.Header, _ []byte) { h.GSOSize = 47 },
		"doff 0":      func(_ *frame.Header, f []byte) { f[14+20+12] = 0 },
		"of UDP":      func(_ *frame.Header, f []byte) { f[23] = 17 },
	} {
		h, f := newStream(pattern(1, 1000)).super(t, 100)
		spoil(&h, f)
		new(frame.Segmenter).Segment(h, [][]byte{f}, func([][]byte) { t.Error(name) })
		require.False(t, frame.NewQueue(1<<20).PutOffload(h, f), name)
	}
}
