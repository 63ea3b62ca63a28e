// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

func seed(f *testing.F) {
	from, to := netip.AddrPortFrom(src, 67), netip.AddrPortFrom(dst, 68)
	f.Add(packet.AppendUDP(nil, link, from, to, []byte("payload")))
	f.Add(packet.AppendEcho(nil, link, src, dst, packet.Echo{ID: 1, Seq: 2, Data: []byte("data")}))
	f.Add(packet.AppendARP(nil, link, packet.ARP{Op: 1, Sender: src, Target: dst}))
	f.Add(packet.AppendUnreachable(nil, link, src, dst, 1, make([]byte, 20), make([]byte, 8)))
	f.Add([]byte{})
	f.Add(make([]byte, 13))
}

// inside reports whether view is a part of frame, not a copy.
func inside(frame, view []byte) bool {
	return len(view) == 0 || len(view) <= len(frame) && bytes.Contains(frame, view)
}

func FuzzEthernet(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		eth, ok := packet.ParseEthernet(frame)
		if ok != (len(frame) >= 14) {
			t.Fatal("length")
		}
		if !ok {
			return
		}
		// Building what was read gives the header again.
		again := append(append(append([]byte{}, eth.Dst[:]...), eth.Src[:]...), byte(eth.Type>>8), byte(eth.Type))
		if !bytes.Equal(again, frame[:14]) || !bytes.Equal(eth.Payload, frame[14:]) {
			t.Fatalf("%x", frame)
		}
	})
}

func FuzzIPv4(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, ok := parseIPv4(frame)
		if !ok {
			return
		}
		if len(p.Header) < 20 || len(p.Header)+len(p.Payload) > len(frame)-14 || !inside(frame, p.Header) || !inside(frame, p.Payload) {
			t.Fatalf("%x", frame)
		}
		var theirs layers.IPv4
		if err := theirs.DecodeFromBytes(frame[14:], gopacket.NilDecodeFeedback); err != nil {
			return // it judges options too
		}
		if theirs.SrcIP.String() != p.Src.String() || theirs.DstIP.String() != p.Dst.String() ||
			uint8(theirs.Protocol) != p.Proto || theirs.TTL != p.TTL || !bytes.Equal(theirs.Payload, p.Payload) {
			t.Fatalf("%+v\n%+v", theirs, p)
		}
	})
}

func FuzzUDP(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, ok := parseIPv4(frame)
		if !ok {
			return
		}
		u, ok := packet.ParseUDP(p)
		if !ok {
			return
		}
		if p.Fragment || p.Proto != packet.ProtoUDP || len(u.Payload)+packet.UDPLen > len(p.Payload) || !inside(frame, u.Payload) {
			t.Fatalf("%x", frame)
		}
		// What was read is built and read again, the same.
		again := packet.AppendUDP(nil, link, netip.AddrPortFrom(p.Src, u.SrcPort), netip.AddrPortFrom(p.Dst, u.DstPort), u.Payload)
		p2, _ := parseIPv4(again)
		u2, ok := packet.ParseUDP(p2)
		if !ok || u2.SrcPort != u.SrcPort || u2.DstPort != u.DstPort || !bytes.Equal(u2.Payload, u.Payload) {
			t.Fatalf("%+v\n%+v", u, u2)
		}
	})
}

func FuzzEcho(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, ok := parseIPv4(frame)
		if !ok {
			return
		}
		e, ok := packet.ParseEcho(p)
		if !ok {
			return
		}
		if p.Fragment || p.Proto != packet.ProtoICMP || !inside(frame, e.Data) {
			t.Fatalf("%x", frame)
		}
		p2, _ := parseIPv4(packet.AppendEcho(nil, link, p.Src, p.Dst, e))
		if !bytes.Equal(p2.Payload, p.Payload) && packet.Checksum(0, p2.Payload) != 0 {
			t.Fatalf("%x\n%x", p.Payload, p2.Payload)
		}
	})
}

func FuzzARP(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		eth, _ := packet.ParseEthernet(frame)
		a, ok := packet.ParseARP(eth.Payload)
		if !ok {
			return
		}
		if again := packet.AppendARP(nil, packet.Link{Src: eth.Src, Dst: eth.Dst}, a); !bytes.Equal(again[14:], frame[14:42]) {
			t.Fatalf("%x\n%x", frame, again)
		}
	})
}
