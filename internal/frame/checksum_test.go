// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
)

// unsummed replaces the checksum of a frame by the sum of its pseudo header.
func unsummed(f []byte, field int) (frame.Header, []byte) {
	f = slices.Clone(f)
	start := 14 + int(f[14]&15)*4
	binary.BigEndian.PutUint16(f[start+field:], pseudo(f, start))
	return frame.Header{Flags: frame.NeedsChecksum, CsumStart: uint16(start), CsumOffset: uint16(field)}, f
}

func udp(t testing.TB, ip *layers.IPv4, payload []byte) []byte {
	t.Helper()
	ip.Version, ip.TTL, ip.Protocol = 4, 64, layers.IPProtocolUDP
	ip.SrcIP, ip.DstIP = []byte{192, 168, 127, 3}, []byte{10, 255, 0, 9}
	u := &layers.UDP{SrcPort: 5353, DstPort: 53}
	require.NoError(t, u.SetNetworkLayerForChecksum(ip))
	return serialize(t, layers.EthernetTypeIPv4, ip, u, gopacket.Payload(payload))
}

func TestChecksumIsThatOfAnother(t *testing.T) {
	var s frame.Segmenter
	options := []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	for _, n := range []int{0, 1, 2, 3, 32, 33, 1447, 1448, 65000} {
		tcp := newStream(pattern(n, n), timestamps...)
		for name, c := range map[string]struct {
			want  []byte
			field int
		}{
			"TCP":              {tcp.part(t, 0, n, 1<<20), 16},
			"UDP":              {udp(t, &layers.IPv4{}, pattern(n, n)), 6},
			"UDP with options": {udp(t, &layers.IPv4{Options: options}, pattern(n, n)), 6},
		} {
			h, f := unsummed(c.want, c.field)
			least := int(h.CsumStart+h.CsumOffset) + 2
			for _, parts := range [][][]byte{
				{f}, split(f, least), split(f, least, 0, 1, 0, 3, 1), split(f, max(least, len(f)-1)), split(f, len(f)),
				split(f, append([]int{least}, slices.Repeat([]int{1}, 20)...)...),
			} {
				require.Equal(t, [][]byte{c.want}, segment(t, &s, h, parts), "%s of %d bytes in %d parts", name, n, len(parts))
			}
			require.Zero(t, h.Complete(f))
			require.Equal(t, c.want, f, "%s of %d bytes, in place", name, n)
			require.Equal(t, frame.Header{GSOSize: 7}, frame.Header{GSOSize: 7}.Complete(f))
			require.Equal(t, c.want, f, "%s of %d bytes, unchanged", name, n)
		}
	}
	h, f := unsummed(udp(t, &layers.IPv4{}, pattern(1, 301)), 6)
	want := segment(t, &s, h, [][]byte{f})
	for first := 42; first <= len(f); first++ {
		for second := 0; second <= len(f)-first; second += 7 {
			require.Equal(t, want, segment(t, &s, h, split(f, first, second)), "%d, %d", first, second)
		}
	}
}

// A sum of 0 is sent as 0xffff: 0 would say that there is none (RFC 768).
func TestCompletedChecksumIsNeverZero(t *testing.T) {
	f := udp(t, &layers.IPv4{}, []byte{0, 0, 1})
	copy(f[42:], f[40:42]) // makes the total 0
	h, f := unsummed(f, 6)
	var s frame.Segmenter
	got := segment(t, &s, h, [][]byte{f})[0]
	require.Equal(t, []byte{0xff, 0xff}, got[40:42])
	whole := slices.Clone(f)
	h.Complete(whole)
	require.Equal(t, got, whole)
	require.EqualValues(t, 0xffff, wordSum(slices.Concat(got[34:], []byte{0}, binary.BigEndian.AppendUint16(nil, pseudo(f, 34)))))
}

// Where the sum begins and goes is the sender's business, as long as it is in the
// frame: a kernel takes it for protocols that nobody here knows.
func TestChecksumAnywhere(t *testing.T) {
	var s frame.Segmenter
	f := pattern(7, 120)
	for start := 14; start < len(f); start++ {
		for field := start; field+2 <= len(f); field++ {
			h := frame.Header{Flags: frame.NeedsChecksum, CsumStart: uint16(start), CsumOffset: uint16(field - start)}
			want := slices.Clone(f)
			binary.BigEndian.PutUint16(want[field:], ^wordSum(f[start:]))
			require.Equal(t, [][]byte{want}, segment(t, &s, h, split(f, field+2)), "of %d at %d", start, field)
		}
	}
}
