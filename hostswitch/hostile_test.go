// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// drops returns what was dropped of a guest, by reason.
func drops(t testing.TB, sw *hostswitch.Switch, g *guest) map[string]uint64 {
	t.Helper()
	for _, p := range sw.Snapshot().Ports {
		if p.Name == "guest "+strconv.Itoa(int(g.mac[5])) || g.mac == guestMAC && p.Name == "guest 2" {
			return p.Drops
		}
	}
	require.FailNow(t, "no such port")
	return nil
}

// FAILURES 13: frames of every wrong length, and with every wrong header. None is
// relayed, each is counted, and the switch and another guest go on.
func TestHostileFrames(t *testing.T) {
	const mtu = 1500
	rogue := func(g *guest, link packet.Link) []byte {
		offer, _ := dhcpv4.NewReplyFromRequest(&dhcpv4.DHCPv4{ClientHWAddr: make(net.HardwareAddr, 6)}, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer))
		return packet.AppendUDP(nil, link, netip.AddrPortFrom(g.addr, 67), netip.MustParseAddrPort("255.255.255.255:68"), offer.ToBytes())
	}
	arp := func(g *guest, op uint16, sender netip.Addr) []byte {
		return packet.AppendARP(nil, g.toAll(), packet.ARP{Op: op, SenderMAC: g.mac, Sender: sender, Target: guestAddr(2)})
	}
	udp := func(link packet.Link, src, dst netip.Addr) []byte {
		return packet.AppendUDP(nil, link, netip.AddrPortFrom(src, 9), netip.AddrPortFrom(dst, 9), []byte("x"))
	}
	from := func(g *guest, src packet.MAC) []byte {
		return ethernet(packet.Link{Src: src, Dst: packet.Broadcast}, markerType, []byte("bad")...)
	}
	all := func(n int, build func(i int) []byte) (frames [][]byte) {
		for i := range n {
			frames = append(frames, build(i))
		}
		return frames
	}
	for name, tc := range map[string]struct {
		frames func(g *guest) [][]byte
		reason string
	}{
		"lengths 1 to 13": {func(g *guest) [][]byte {
			return all(13, func(i int) []byte { return bytes.Repeat([]byte{0xff}, i+1) })
		}, "short"},
		"no IPv4 header": {func(g *guest) [][]byte {
			return all(20, func(i int) []byte { return ethernet(g.toAll(), packet.EtherIPv4, make([]byte, i)...) })
		}, "short"},
		"wrong IPv4 checksum": {func(g *guest) [][]byte {
			f := udp(g.toAll(), g.addr, guestAddr(2))
			f[24]++
			return [][]byte{f}
		}, "short"},
		"no ARP message": {func(g *guest) [][]byte {
			return all(28, func(i int) []byte { return ethernet(g.toAll(), packet.EtherARP, make([]byte, i)...) })
		}, "spoofed"},
		"longer than the MTU": {func(g *guest) [][]byte {
			return all(3, func(i int) []byte {
				return ethernet(g.toAll(), markerType, make([]byte, []int{mtu + 1, 9000, 65535 - 14}[i])...)
			})
		}, "long"},
		"VLAN longer than the MTU": {func(g *guest) [][]byte {
			return [][]byte{ethernet(g.toAll(), packet.EtherVLAN, make([]byte, mtu+5)...)}
		}, "long"},
		"source is multicast":          {func(g *guest) [][]byte { return [][]byte{from(g, packet.MAC{1, 0, 0x5e, 0, 0, 1})} }, "source"},
		"source is broadcast":          {func(g *guest) [][]byte { return [][]byte{from(g, packet.Broadcast)} }, "source"},
		"source is nobody":             {func(g *guest) [][]byte { return [][]byte{from(g, packet.MAC{})} }, "source"},
		"source is the gateway":        {func(g *guest) [][]byte { return [][]byte{from(g, gatewayMAC)} }, "source"},
		"EtherType of the offload":     {func(g *guest) [][]byte { return [][]byte{ethernet(g.toAll(), 0x88b5, make([]byte, 46)...)} }, "reserved"},
		"ARP reply for the gateway":    {func(g *guest) [][]byte { return [][]byte{arp(g, 2, gateway)} }, "spoofed"},
		"ARP request of the gateway":   {func(g *guest) [][]byte { return [][]byte{arp(g, 1, gateway)} }, "spoofed"},
		"ARP reply for the host alias": {func(g *guest) [][]byte { return [][]byte{arp(g, 2, hostAlias)} }, "spoofed"},
		"IP of the gateway":            {func(g *guest) [][]byte { return [][]byte{udp(g.toAll(), gateway, guestAddr(2))} }, "spoofed"},
		"IP of the host alias":         {func(g *guest) [][]byte { return [][]byte{udp(g.toAll(), hostAlias, guestAddr(2))} }, "spoofed"},
		"IP from outside":              {func(g *guest) [][]byte { return [][]byte{udp(g.toGateway(), world, hostAlias)} }, "spoofed"},
		"DHCP server, broadcast":       {func(g *guest) [][]byte { return [][]byte{rogue(g, g.toAll())} }, "spoofed"},
		"DHCP server, to one guest":    {func(g *guest) [][]byte { return [][]byte{rogue(g, packet.Link{Src: g.mac, Dst: guestMAC})} }, "spoofed"},
		"ARP of another guest's lease": {func(g *guest) [][]byte { return [][]byte{arp(g, 2, guestAddr(2))} }, "spoofed"},
		"IP of another guest's lease":  {func(g *guest) [][]byte { return [][]byte{udp(g.toAll(), guestAddr(2), gateway)} }, "spoofed"},
		"router advertisement":         {func(g *guest) [][]byte { return [][]byte{ipv6(g, 58, 134)} }, "ipv6"},
		"IPv6 extension header":        {func(g *guest) [][]byte { return [][]byte{ipv6(g, 0, 58)} }, "ipv6"},
		"tag of no VLAN": {func(g *guest) [][]byte {
			return [][]byte{tagged(arp(g, 2, gateway), 0x8100), tagged(rogue(g, g.toAll()), 0x88a8)}
		}, "tagged"},
		"first fragment of a DHCP server": {func(g *guest) [][]byte {
			f := rogue(g, g.toAll())
			f[14+6] = 0x20 // more fragments
			f[14+10], f[14+11] = 0, 0
			binary.BigEndian.PutUint16(f[14+10:], packet.Checksum(0, f[14:34]))
			return [][]byte{f}
		}, "spoofed"},
		"DHCP server, in the gateway's": {func(g *guest) [][]byte {
			return [][]byte{packet.AppendUDP(nil, g.toAll(), netip.AddrPortFrom(gateway, 67), netip.MustParseAddrPort("255.255.255.255:68"), nil)}
		}, "spoofed"},
	} {
		t.Run(name, func(t *testing.T) {
			sw := newSwitch(t, hostswitch.Config{})
			bad, good := attachRaw(t, sw, 9), attachRaw(t, sw, 2)
			seen := good.watch(isAny)
			good.send(good.marker("here I am")) // the switch knows where to send what is for it
			eventually(t, func() bool { return len(sw.Snapshot().CAM) == 1 }, "learned")
			frames := tc.frames(bad)
			for _, f := range frames {
				bad.send(f)
			}
			bad.send(bad.marker("end"))
			e, _ := packet.ParseEthernet(await(t, seen, "marker"))
			require.Equal(t, "end", string(e.Payload), "nothing is relayed before it")
			require.Equal(t, map[string]uint64{tc.reason: uint64(len(frames))}, drops(t, sw, bad))
			require.Equal(t, gatewayMAC, good.resolve(t, gateway))
			require.Empty(t, drops(t, sw, good))
		})
	}
}

// A frame of length 0 is one too; it has no sender that could be told of.
func TestEmptyFrames(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	near, done := start(t.Context(), sw)
	good := attachRaw(t, sw, 2)
	_, err := near.Write(make([]byte, 2000))
	require.NoError(t, err)
	eventually(t, func() bool { return sw.Snapshot().Drops["short"] == 1000 }, "counted")
	require.Equal(t, gatewayMAC, good.resolve(t, gateway))
	require.NoError(t, near.Close())
	require.NoError(t, await(t, done, "Attach"))
}

// ipv6 is a packet to all with that next header, whose first byte is kind.
func ipv6(g *guest, next, kind byte) []byte {
	b := make([]byte, 40+24)
	b[0], b[5], b[6], b[7], b[40] = 0x60, 24, next, 255, kind
	return ethernet(g.toAll(), packet.EtherIPv6, b...)
}

// tagged puts an empty tag into a frame.
func tagged(f []byte, kind uint16) []byte {
	return append(binary.BigEndian.AppendUint16(append([]byte(nil), f[:12]...), kind), append([]byte{0, 0}, f[12:]...)...)
}

// The longest frame that the MTU allows is relayed.
func TestLongestFrames(t *testing.T) {
	for _, mtu := range []int{576, 1500, 3986, 65521} {
		sw := newSwitch(t, hostswitch.Config{MTU: mtu})
		a, b := attachRaw(t, sw, 2), attachRaw(t, sw, 3)
		eventually(t, func() bool { return len(sw.Snapshot().Ports) == 2 }, "attached")
		seen := b.watch(isAny)
		a.send(ethernet(a.toAll(), markerType, make([]byte, mtu)...))
		require.Len(t, await(t, seen, "frame"), 14+mtu)
	}
}

// The table of addresses is bounded for each port: who invents them pushes nobody
// else's out.
func TestMACFlood(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	good, bad := attachRaw(t, sw, 2), attachRaw(t, sw, 9)
	require.Equal(t, gatewayMAC, good.resolve(t, gateway))
	const flood = 10_000
	for i := range flood {
		src := packet.MAC{2, 1, byte(i >> 16), byte(i >> 8), byte(i), 1}
		bad.send(ethernet(packet.Link{Src: src, Dst: gatewayMAC}, markerType, 1))
	}
	eventually(t, func() bool { return drops(t, sw, bad)["macTableFull"] == flood-256 }, "the flood")
	snap := sw.Snapshot()
	require.Len(t, snap.CAM, 1+256)
	require.Equal(t, gatewayMAC, good.resolve(t, gateway))

	bad.unplug()
	require.Len(t, sw.Snapshot().CAM, 1, "a port that goes takes its addresses along")
}

// FuzzIngress: whatever a guest's stream holds, the switch and another guest go
// on.
func FuzzIngress(f *testing.F) {
	encode := func(frames ...[]byte) (stream []byte) {
		for _, fr := range frames {
			stream = append(binary.LittleEndian.AppendUint16(stream, uint16(len(fr))), fr...)
		}
		return stream
	}
	g := &guest{mac: macOf(9), addr: guestAddr(9)}
	discover, err := dhcpv4.NewDiscovery(net.HardwareAddr(g.mac[:]))
	require.NoError(f, err)
	bootp := packet.AppendUDP(nil, g.toAll(), netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), discover.ToBytes())
	ping := packet.AppendEcho(nil, g.toGateway(), g.addr, gateway, packet.Echo{ID: 1, Seq: 2, Data: []byte("data")})
	query := packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 5353), netip.AddrPortFrom(gateway, 53), []byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04host\x06docker\x08internal\x00\x00\x01\x00\x01"))
	syn := g.syn(netip.AddrPortFrom(g.addr, 1000), netip.AddrPortFrom(gateway, 80))
	for _, seed := range [][]byte{
		nil, {0}, {0, 0}, {255, 255}, {13, 0}, {14, 0},
		encode(g.whoHas(gateway)), encode(bootp), encode(g.whoHas(gateway), ping), encode(g.whoHas(gateway), query), encode(g.whoHas(gateway), syn),
		encode(syn[:20], ping[:34], bootp[:50]),
		encode(ethernet(g.toAll(), 0x88b5, make([]byte, 46)...)),
		encode(ipv4Frame(g.toGateway(), g.addr, gateway, packet.ProtoICMP, 0x2000, []byte{8, 0, 0, 0, 0, 0, 0, 0})),
		encode(make([]byte, 65535)),
	} {
		f.Add(seed)
	}
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(rand.NewPCG(uint64(i), 1).Uint64())
	}
	f.Add(random)

	sw := newSwitch(f, hostswitch.Config{DialOutbound: refuseDial, Resolver: resolverFunc(refuseAll), SearchDomains: []string{}})
	good := attachRaw(f, sw, 2)
	f.Fuzz(func(t *testing.T, stream []byte) {
		near, done := start(t.Context(), sw)
		drained := during(func() {
			buf := make([]byte, 64<<10)
			for {
				if _, err := near.Read(buf); err != nil {
					return
				}
			}
		})
		_, err := near.Write(stream)
		require.NoError(t, err)
		require.Equal(t, gatewayMAC, good.resolve(t, gateway))
		require.NoError(t, near.Close())
		_ = await(t, done, "Attach") // EOF, or in the middle of a frame
		<-drained
	})
}
