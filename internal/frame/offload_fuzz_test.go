// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// FuzzOffloadReader: any bytes in any pieces, of which some frames are plain, are
// what a slow decoder makes of them.
func FuzzOffloadReader(f *testing.F) {
	offload := encodeOffload(anyHeader, pattern(3, 60))
	f.Add(slices.Concat(encode(pattern(1, 60), nil), offload, offload), uint8(2), []byte{1, 2, 3})
	f.Add(slices.Concat(offload, []byte{9, 0, 0, 0}), uint8(0), []byte{5})
	f.Add(slices.Concat(encode(nil), []byte{0x18, 0, 1, 0}, pattern(1, 65560)), uint8(1), []byte{})
	f.Fuzz(func(t *testing.T, wire []byte, upgrade uint8, splits []byte) {
		var want []got
		rest, wantErr := wire, error(nil)
		for wantErr == nil {
			var g got
			var head, n int
			switch plain := len(want) < int(upgrade); {
			case len(rest) == 0:
				wantErr = io.EOF
				continue
			case plain && len(rest) >= 2:
				head, n = 2, int(binary.LittleEndian.Uint16(rest))
			case !plain && len(rest) >= 4:
				length := binary.LittleEndian.Uint32(rest)
				if length < 10 || length > 65559 {
					wantErr = frame.ErrLength
					continue
				}
				if len(rest) >= 14 {
					g.h = frame.ParseHeader(rest[4:])
				}
				head, n = 14, int(length)-10
			}
			if head == 0 || len(rest) < head+n {
				wantErr = io.ErrUnexpectedEOF
				continue
			}
			g.f, rest = rest[head:head+n], rest[head+n:]
			want = append(want, g)
		}
		lengths := make([]int, 0, len(splits))
		for _, s := range splits {
			lengths = append(lengths, int(s))
		}
		all, err := readUpgraded(frame.NewReader(&chunks{wire, lengths}), int(upgrade))
		if err != wantErr || len(all) != len(want) { //nolint:errorlint // bare, as documented
			t.Fatalf("%d frames and %v, want %d and %v", len(all), err, len(want), wantErr)
		}
		for i := range all {
			if all[i].h != want[i].h || !bytes.Equal(all[i].f, want[i].f) {
				t.Fatalf("frame %d: %v, want %v", i, all[i], want[i])
			}
		}
	})
}

// partsOf cuts b after its first bytes and then as splits say.
func partsOf(b []byte, first int, splits []byte) [][]byte {
	lengths := []int{min(first, len(b))}
	for _, s := range splits {
		lengths = append(lengths, int(s))
	}
	return split(b, lengths...)
}

// headersOf is how much of a frame the first part has to hold.
func headersOf(h frame.Header, b []byte) int {
	n := int(h.CsumStart) + int(h.CsumOffset) + 2
	if h.GSOType == frame.GSOTCPv4 {
		n = int(h.CsumStart) + int(b[h.CsumStart+12]>>4)*4
	}
	return n
}

// FuzzSegment: whatever passes Check becomes frames that are right.
func FuzzSegment(f *testing.F) {
	for _, n := range []int{0, 1, 100, 3000} {
		s := newStream(pattern(n, n), timestamps...)
		h, super := s.super(f, 48)
		b := make([]byte, frame.HeaderLen)
		h.Put(b)
		f.Add(b, super, []byte{1, 0, 7})
		h, summed := unsummed(s.part(f, 0, n, 1<<20), 16)
		b = make([]byte, frame.HeaderLen)
		h.Put(b)
		f.Add(b, summed, []byte{3})
	}
	f.Add(make([]byte, frame.HeaderLen), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, header, b, splits []byte) {
		if len(header) < frame.HeaderLen || len(b) > 65549 {
			return
		}
		h := frame.ParseHeader(header)
		if h.Check(b, len(b)) != nil {
			return
		}
		var s frame.Segmenter
		switch {
		case h.Flags == 0 && h.GSOType == frame.GSONone:
			if got := segment(t, &s, h, partsOf(b, 1, splits)); len(got) != 1 || !bytes.Equal(got[0], b) {
				t.Fatal("changed")
			}
		case h.GSOType == frame.GSONone:
			got := segment(t, &s, h, partsOf(b, headersOf(h, b), splits))
			field := int(h.CsumStart) + int(h.CsumOffset)
			if len(got) != 1 || len(got[0]) != len(b) || !bytes.Equal(got[0][:field], b[:field]) || !bytes.Equal(got[0][field+2:], b[field+2:]) {
				t.Fatal("more than the checksum changed")
			}
			initial := uint32(binary.BigEndian.Uint16(b[field:]))
			if h.CsumOffset%2 == 0 && packet.Checksum(initial, got[0][h.CsumStart:]) != 0 {
				t.Fatalf("checksum %x of %x", got[0][field:field+2], b)
			}
		default:
			checkSegments(t, h, b, segment(t, &s, h, partsOf(b, headersOf(h, b), splits)))
		}
	})
}

func checkSegments(t *testing.T, h frame.Header, b []byte, frames [][]byte) {
	headers, tcp := headersOf(h, b), int(h.CsumStart)
	var payload []byte
	for i, f := range frames {
		n := len(f) - headers
		if n < 0 || n > int(h.GSOSize) || i < len(frames)-1 && n != int(h.GSOSize) || n == 0 && i > 0 {
			t.Fatalf("segment %d of %d has %d bytes by %d", i, len(frames), n, h.GSOSize)
		}
		if packet.Checksum(0, f[14:tcp]) != 0 || packet.Checksum(uint32(pseudo(f, tcp)), f[tcp:]) != 0 {
			t.Fatalf("checksums of %x", f)
		}
		if binary.BigEndian.Uint32(f[tcp+4:]) != binary.BigEndian.Uint32(b[tcp+4:])+uint32(len(payload)) ||
			binary.BigEndian.Uint16(f[18:]) != binary.BigEndian.Uint16(b[18:])+uint16(i) ||
			int(binary.BigEndian.Uint16(f[16:])) != len(f)-14 {
			t.Fatalf("numbers of %x", f)
		}
		payload = append(payload, f[headers:]...)
		// But for lengths, numbers, flags and checksums all is as it was.
		like := slices.Clone(f[:headers])
		for _, r := range [][2]int{{16, 20}, {24, 26}, {tcp + 4, tcp + 8}, {tcp + 13, tcp + 14}, {tcp + 16, tcp + 18}} {
			copy(like[r[0]:r[1]], b[r[0]:r[1]])
		}
		if !bytes.Equal(like, b[:headers]) {
			t.Fatalf("headers %x of %x", f[:headers], b[:headers])
		}
	}
	if !bytes.Equal(payload, b[headers:]) {
		t.Fatal("payload")
	}
}

// FuzzQueueFormats: a queue holds what was taken, in the format of its time, and
// takes what fits.
func FuzzQueueFormats(f *testing.F) {
	f.Add([]byte{0, 10, 1, 200, 2, 3, 3, 0, 1, 200, 0, 255, 2, 9}, uint32(1<<20))
	f.Add([]byte{1, 255, 1, 254, 1, 253, 2, 255, 3, 1, 2, 255, 1, 255}, uint32(150000))
	f.Add([]byte{3, 0, 3, 0, 4, 100}, uint32(20))
	f.Fuzz(func(t *testing.T, ops []byte, limit uint32) {
		limit %= 1 << 21
		q := frame.NewQueue(int(limit))
		var want []byte
		var refused uint64
		offload := false
		for ; len(ops) >= 2 && len(want) < 1<<21; ops = ops[2:] {
			arg, room := int(ops[1]), int(limit)
			var h frame.Header
			var b []byte
			var plain [][]byte
			var put func(frame.Header, ...[]byte) bool
			switch ops[0] % 5 {
			case 0:
				b = pattern(arg, arg*257)
				plain = [][]byte{b}
				put = func(_ frame.Header, parts ...[]byte) bool { return q.Put(parts...) }
			case 1, 4:
				s := newStream(pattern(arg, arg*256))
				size := 48 + arg*260%65488
				h, b = s.super(t, size)
				plain = s.segments(t, size)
				put = q.PutOffload
				if ops[0]%5 == 4 {
					put, room = q.PutSpare, int(limit)/4
				}
			case 2:
				whole := newStream(pattern(arg, arg*200)).part(t, 0, arg*200, 1<<20)
				h, b = unsummed(whole, 16)
				plain = [][]byte{whole}
				put = q.PutOffload
			case 3:
				q.Upgrade(b)
				if !offload {
					want, offload = append(want, encode(b)...), true
				}
				continue
			}
			add := encode(plain...)
			fits := !slices.ContainsFunc(plain, func(p []byte) bool { return len(p) > 65535 })
			if offload {
				add, fits = encodeOffload(h, b), true
			}
			fits = fits && len(b) > 0 && len(want)+len(add) <= room
			if took := put(h, split(b, min(len(b), 54), arg)...); took != fits {
				t.Fatalf("%d of %d, %d more of %+v, taken: %v", len(want), room, len(add), h, took)
			}
			if fits {
				want = append(want, add...)
			} else {
				refused++
			}
		}
		if queued, dropped := q.Len(); queued != len(want) || dropped != refused {
			t.Fatalf("%d bytes and %d dropped, want %d and %d", queued, dropped, len(want), refused)
		}
		if got := contents(t, q); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, want %d", len(got), len(want))
		}
	})
}
