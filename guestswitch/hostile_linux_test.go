// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// tcpFrame is a segment to the guest with so much payload, and a checksum that is
// to be completed.
func tcpFrame(payload int) []byte {
	f := packet.AppendUDP(nil, packet.Link{Src: gatewayMAC, Dst: guestMAC},
		netip.AddrPortFrom(gateway, 1), netip.AddrPortFrom(guestAddr.Addr(), 2), make([]byte, 12+payload))
	f[14+9] = packet.ProtoTCP
	binary.BigEndian.PutUint16(f[14+10:], 0)
	binary.BigEndian.PutUint16(f[14+10:], packet.Checksum(0, f[14:34]))
	f[34+12] = 5 << 4
	return f
}

// header is one of virtio, little-endian.
func header(flags, gsoType byte, hdrLen, gsoSize, csumStart, csumOffset uint16) (h [10]byte) {
	h[0], h[1] = flags, gsoType
	for i, v := range []uint16{hdrLen, gsoSize, csumStart, csumOffset} {
		binary.LittleEndian.PutUint16(h[2+2*i:], v)
	}
	return h
}

func TestBadHeadersFromTheHost(t *testing.T) {
	large := tcpFrame(4000)
	fragment := tcpFrame(4000)
	fragment[14+6] = 0x20
	short := tcpFrame(4000)
	binary.BigEndian.PutUint16(short[14+2:], 1000)
	offset := tcpFrame(4000)
	offset[34+12] = 4 << 4
	for name, c := range map[string]struct {
		record  record
		refused uint64
	}{
		"good":                          {record{header(1, 1, 54, 1460, 34, 16), large}, 0},
		"good, checksum only":           {record{header(1, 0, 0, 0, 34, 16), tcpFrame(1000)}, 0},
		"good, checksum is valid":       {record{header(2, 0, 0, 0, 0, 0), tcpFrame(1000)}, 0},
		"segments longer than the MTU":  {record{header(1, 1, 54, 1461, 34, 16), large}, 1},
		"long, and no segments":         {record{header(0, 0, 0, 0, 0, 0), large}, 1},
		"long, checksum only":           {record{header(1, 0, 54, 0, 34, 16), large}, 1},
		"segments of 0":                 {record{header(1, 1, 54, 0, 34, 16), large}, 1},
		"segments of 47":                {record{header(1, 1, 54, 47, 34, 16), large}, 1},
		"segments of 48":                {record{header(1, 1, 54, 48, 34, 16), large}, 0},
		"UDP":                           {record{header(1, 3, 54, 1000, 34, 6), large}, 1},
		"TCP over IPv6":                 {record{header(1, 4, 54, 1000, 34, 16), large}, 1},
		"UDP segments":                  {record{header(1, 5, 54, 1000, 34, 6), large}, 1},
		"ECN":                           {record{header(1, 0x81, 54, 1460, 34, 16), large}, 1},
		"unknown":                       {record{header(1, 2, 54, 1460, 34, 16), large}, 1},
		"no checksum to complete":       {record{header(0, 1, 54, 1460, 34, 16), large}, 1},
		"checksum begins at 0":          {record{header(1, 0, 0, 0, 0, 16), tcpFrame(100)}, 1},
		"checksum begins outside":       {record{header(1, 0, 0, 0, 154, 0), tcpFrame(100)}, 1},
		"checksum outside":              {record{header(1, 0, 0, 0, 34, 119), tcpFrame(100)}, 1},
		"checksum outside, wraps":       {record{header(1, 0, 0, 0, 65535, 65535), tcpFrame(100)}, 1},
		"checksum not where TCP's is":   {record{header(1, 1, 54, 1460, 34, 6), large}, 1},
		"begins not where TCP does":     {record{header(1, 1, 54, 1460, 38, 16), large}, 1},
		"headers longer than the frame": {record{header(0, 0, 65535, 0, 0, 0), tcpFrame(100)}, 1},
		"a fragment":                    {record{header(1, 1, 54, 1460, 34, 16), fragment}, 1},
		"another length inside":         {record{header(1, 1, 54, 1460, 34, 16), short}, 1},
		"TCP header too short":          {record{header(1, 1, 54, 1460, 34, 16), offset}, 1},
		"not IP at all":                 {record{header(1, 1, 14, 1460, 34, 16), append(arpRequest(), make([]byte, 4000)...)}, 1},
		"nothing of it there":           {record{header(1, 1, 54, 1460, 34, 16), large[:20]}, 1},
		"empty":                         {record{}, 1},
		"empty, with a header":          {record{header: header(1, 1, 54, 1460, 34, 16)}, 1},
		"shorter than Ethernet's":       {record{frame: make([]byte, 13)}, 1},
		"longest":                       {record{frame: make([]byte, 65549)}, 1},
		"of the reserved EtherType":     {record{frame: message(guestMAC, gatewayMAC, offer, make([]byte, 16))}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guestswitch.Guest{}
			r, h := startOffload(t, g)
			h.write(c.record.encode())
			h.answers()
			s := g.Stats()
			require.Equal(t, c.refused, s.Refused)
			require.Zero(t, s.Dropped) // what is let through is right in the kernel's eyes too
			r.stop()
		})
	}
}

// A length that no frame has ends the session, before anything of it is stored.
func TestBadLengthsFromTheHost(t *testing.T) {
	for _, n := range []uint32{0, 1, 9, 65560, 1 << 16 << 8, 1<<32 - 1} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r, h := startOffload(t, &guestswitch.Guest{})
			h.write(binary.LittleEndian.AppendUint32(nil, n))
			require.ErrorIs(t, r.end(), frame.ErrLength)
			require.ErrorContains(t, r.err, "guestswitch: the data connection failed: ")
			require.Equal(t, untouched, r.ns.state())
		})
	}
}

// Whatever gets through to the kernel, nothing ends.
func TestNoiseFromTheHost(t *testing.T) {
	g := &guestswitch.Guest{}
	r, h := startOffload(t, g)
	rng := rand.New(rand.NewPCG(3, 4))
	source := rand.NewChaCha8([32]byte{5})
	pick := func(v ...uint16) uint16 { return append(v, uint16(rng.Uint32()))[rng.IntN(len(v)+1)] }
	for range 200 {
		var batch []byte
		for range 20 {
			f := tcpFrame(rng.IntN(8000))
			if rng.IntN(4) == 0 {
				_, _ = source.Read(f[14:])
			}
			if rng.IntN(4) == 0 {
				f[rng.IntN(54)] = byte(rng.Uint32())
			}
			if f[12] == 0x88 && f[13] == 0xb5 || rng.IntN(8) == 0 {
				f = f[:rng.IntN(60)]
			}
			batch = append(batch, record{
				header(byte(pick(0, 1, 2)), byte(pick(0, 1, 1, 4)), pick(0, 54, 14), pick(0, 48, 1460), pick(34, 34, 0), pick(16, 16, 6)), f,
			}.encode()...)
		}
		h.write(batch)
	}
	h.answers()
	s := g.Stats()
	require.Positive(t, s.Refused)
	require.Positive(t, s.FramesIn-s.Dropped)
	r.stop()
}
