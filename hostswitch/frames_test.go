// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Raw frames, for what no network stack would send, and for what it keeps to
// itself.

func (g *guest) toGateway() packet.Link { return packet.Link{Src: g.mac, Dst: gatewayMAC} }
func (g *guest) toAll() packet.Link     { return packet.Link{Src: g.mac, Dst: packet.Broadcast} }

func ethernet(link packet.Link, kind uint16, payload ...byte) []byte {
	f := append(append([]byte(nil), link.Dst[:]...), link.Src[:]...)
	return append(binary.BigEndian.AppendUint16(f, kind), payload...)
}

// marker is a frame that is relayed to everybody: what arrives before it, was
// sent before it.
const markerType = 0x88b6 // the other local experimental EtherType

func (g *guest) marker(text string) []byte { return ethernet(g.toAll(), markerType, []byte(text)...) }

func isMarker(e packet.Ethernet) bool { return e.Type == markerType }
func isAny(packet.Ethernet) bool      { return true }
func isARP(e packet.Ethernet) bool    { return e.Type == packet.EtherARP }

func isProto(proto uint8) func(packet.Ethernet) bool {
	return func(e packet.Ethernet) bool {
		ip, ok := packet.ParseIPv4(e.Payload)
		return e.Type == packet.EtherIPv4 && ok && ip.Proto == proto
	}
}

// whoHas asks for the MAC of an address.
func (g *guest) whoHas(a netip.Addr) []byte {
	return packet.AppendARP(nil, g.toAll(), packet.ARP{Op: 1, SenderMAC: g.mac, Sender: g.addr, Target: a})
}

// resolve returns the MAC that answers for an address.
func (g *guest) resolve(t testing.TB, a netip.Addr) packet.MAC {
	t.Helper()
	replies := g.watch(func(e packet.Ethernet) bool {
		r, ok := packet.ParseARP(e.Payload)
		return isARP(e) && ok && r.Op == 2 && r.Sender == a
	})
	defer g.unwatch(replies)
	g.send(g.whoHas(a))
	e, _ := packet.ParseEthernet(await(t, replies, "ARP for "+a.String()))
	r, _ := packet.ParseARP(e.Payload)
	require.Equal(t, e.Src, r.SenderMAC)
	return r.SenderMAC
}

func ipv4Of(t testing.TB, f []byte) packet.IPv4 {
	t.Helper()
	e, ok := packet.ParseEthernet(f)
	require.True(t, ok)
	ip, ok := packet.ParseIPv4(e.Payload)
	require.True(t, ok)
	return ip
}

// syn returns a TCP segment that asks for a connection.
func (g *guest) syn(src, dst netip.AddrPort) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], 1)
	b[12], b[13] = 5<<4, 2
	binary.BigEndian.PutUint16(b[14:], 65535)
	pseudo := append(append(append([]byte(nil), src.Addr().AsSlice()...), dst.Addr().AsSlice()...), 0, packet.ProtoTCP, 0, 20)
	binary.BigEndian.PutUint16(b[16:], packet.Checksum(0, append(pseudo, b...)))
	return ipv4Frame(g.toGateway(), src.Addr(), dst.Addr(), packet.ProtoTCP, 0, b)
}

// ipv4Frame returns a frame with a packet; fragment is the header's word of flags
// and offset.
func ipv4Frame(link packet.Link, src, dst netip.Addr, proto uint8, fragment uint16, payload []byte) []byte {
	ip := []byte{0x45, 0, 0, 0, 0, 7, 0, 0, 64, proto, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(ip[6:], fragment)
	ip = append(append(ip, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], packet.Checksum(0, ip))
	return ethernet(link, packet.EtherIPv4, append(ip, payload...)...)
}

// dhcp sends a DHCP message and returns the answer.
func (g *guest) dhcp(t testing.TB, m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	t.Helper()
	answers := g.watch(isProto(packet.ProtoUDP))
	defer g.unwatch(answers)
	g.send(packet.AppendUDP(nil, g.toAll(), netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), m.ToBytes()))
	for {
		u, ok := packet.ParseUDP(ipv4Of(t, await(t, answers, "DHCP answer")))
		if !ok || u.DstPort != 68 {
			continue
		}
		a, err := dhcpv4.FromBytes(u.Payload)
		require.NoError(t, err)
		if a.TransactionID == m.TransactionID {
			return a
		}
	}
}

// lease gets the guest its address by DHCP, and returns the server's last word.
func (g *guest) lease(t testing.TB) *dhcpv4.DHCPv4 {
	t.Helper()
	discover, err := dhcpv4.NewDiscovery(net.HardwareAddr(g.mac[:]))
	require.NoError(t, err)
	offer := g.dhcp(t, discover)
	require.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
	request, err := dhcpv4.NewRequestFromOffer(offer)
	require.NoError(t, err)
	ack := g.dhcp(t, request)
	require.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
	return ack
}
