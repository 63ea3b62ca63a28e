// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// plain is RFC 1071 word by word.
func plain(sum uint32, b []byte) uint16 {
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum>>16 + sum&0xffff)
}

// FuzzChecksum: adding many bytes at a time is adding them word by word.
func FuzzChecksum(f *testing.F) {
	f.Add(uint32(0), []byte{})
	f.Add(uint32(0xffff), []byte{1})
	f.Add(uint32(0xffff_ffff), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add(uint32(77), make([]byte, 1461))
	f.Fuzz(func(t *testing.T, sum uint32, b []byte) {
		if got, want := packet.Sum(sum, b), plain(sum>>16+sum&0xffff, b); got != want && got+want != 0xffff { // two forms of 0
			t.Fatalf("%04x, want %04x, of %x and %x", got, want, sum, b)
		}
		if packet.Checksum(sum, b) != ^packet.Sum(sum, b) {
			t.Fatal("not the complement")
		}
		if cut := len(b) / 2 &^ 1; packet.Sum(uint32(packet.Sum(sum, b[:cut])), b[cut:]) != packet.Sum(sum, b) {
			t.Fatal("not to be continued")
		}
	})
}

// intact are frames whose checksums are right.
func intact(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for name, payload := range payloads {
		ip, tcp, udp := ipv4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2, ACK: true, Window: 7}, &layers.UDP{SrcPort: 1, DstPort: 2}
		require.NoError(t, tcp.SetNetworkLayerForChecksum(ip))
		all["TCP "+name] = serialize(t, ethernet(layers.EthernetTypeIPv4), ip, tcp, gopacket.Payload(payload))
		ip = ipv4(layers.IPProtocolUDP)
		require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
		all["UDP "+name] = serialize(t, ethernet(layers.EthernetTypeIPv4), ip, udp, gopacket.Payload(payload))
	}
	return all
}

// header rewrites the IPv4 header of a frame, and makes its checksum right.
func header(frame []byte, change func(ip []byte)) []byte {
	frame = slices.Clone(frame)
	ip := frame[14 : 14+int(frame[14]&15)*4]
	change(ip)
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^plain(0, ip))
	return frame
}

func TestIntact(t *testing.T) {
	for name, frame := range intact(t) {
		require.True(t, packet.Intact(frame), name)
		require.True(t, packet.Intact(append(slices.Clone(frame), 1, 2, 3)), "%s, and padding", name)
		end := 14 + int(binary.BigEndian.Uint16(frame[16:]))
		for _, bit := range []int{0, 1, 2, 3, 4, 5, 6, 7} {
			for i := 14; i < end; i += 1 + i/100*40 {
				wrong := slices.Clone(frame)
				wrong[i] ^= 1 << bit
				require.False(t, packet.Intact(wrong), "%s, byte %d, bit %d", name, i, bit)
			}
		}
		for n := range min(end, 300) {
			require.False(t, packet.Intact(frame[:n]), "%s, %d bytes", name, n)
		}
		for what, change := range map[string]func(ip []byte){
			"first fragment":                  func(ip []byte) { ip[6] |= 0x20 },
			"last fragment":                   func(ip []byte) { ip[7] = 9 },
			"of a protocol that is not known": func(ip []byte) { ip[9] = 132 },
		} {
			require.True(t, packet.Intact(header(frame, change)), "%s, %s", name, what)
		}
		require.False(t, packet.Intact(header(frame, func(ip []byte) { ip[16] ^= 1 })), "%s, for another", name)
		other := slices.Clone(frame)
		other[12], other[13], other[14] = 0x86, 0xdd, 0
		require.True(t, packet.Intact(other), "%s, of another kind", name)
	}
	udp := intact(t)["UDP odd"]
	none := slices.Clone(udp)
	copy(none[14+24+6:], []byte{0, 0})
	require.True(t, packet.Intact(none), "UDP without a checksum")
	// IP may carry more than the datagram (RFC 768 counts the datagram only).
	more := header(append(udp[:14+24+11:14+24+11], 0xad, 7), func(ip []byte) { ip[3] += 2 })
	require.True(t, packet.Intact(more), "UDP shorter than its packet")
	require.False(t, packet.Intact(header(udp, func(ip []byte) { ip[3] -= 4 })), "UDP longer than its packet")
}

// FuzzIntact: what is intact is so word by word.
func FuzzIntact(f *testing.F) {
	seed(f)
	for _, frame := range intact(f) {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if !packet.Intact(frame) {
			return
		}
		ip, ok := parseIPv4(frame)
		if !bytes.Equal(frame[12:14], []byte{8, 0}) || ip.Fragment {
			return
		}
		if !ok || plain(0, ip.Header) != 0xffff {
			t.Fatalf("%x", frame)
		}
		b := ip.Payload
		switch {
		case ip.Proto == packet.ProtoUDP && (b[6]|b[7]) == 0:
			return
		case ip.Proto == packet.ProtoUDP:
			b = b[:binary.BigEndian.Uint16(b[4:])]
		case ip.Proto != packet.ProtoTCP:
			return
		}
		all := slices.Concat(ip.Header[12:20], []byte{0, ip.Proto, byte(len(b) >> 8), byte(len(b))}, b)
		if plain(0, all) != 0xffff {
			t.Fatalf("%x", frame)
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		packet.Sum(1, buf)
	}
}

func TestIsFragment(t *testing.T) {
	for name, frame := range intact(t) {
		for what, c := range map[string]struct {
			high, low byte
			want      bool
		}{
			"whole":             {0, 0, false},
			"not to be cut":     {0x40, 0, false},
			"reserved":          {0x80, 0, false},
			"the first":         {0x20, 0, true},
			"in the middle":     {0x20, 1, true},
			"the last":          {0, 1, true},
			"the last possible": {0x1f, 0xff, true},
		} {
			part := header(frame, func(ip []byte) { ip[6], ip[7] = c.high, c.low })
			require.Equal(t, c.want, packet.IsFragment(part), "%s, %s", name, what)
			ip, ok := parseIPv4(part)
			require.True(t, ok)
			require.Equal(t, c.want, ip.Fragment, "%s, %s", name, what)
			part[12], part[13] = 0x86, 0xdd
			require.False(t, packet.IsFragment(part), "%s, %s, of another kind", name, what)
		}
		part := header(frame, func(ip []byte) { ip[6] = 0x20 })
		for n := range 34 {
			require.False(t, packet.IsFragment(part[:n:n]), "%s, %d bytes", name, n)
		}
	}
}
