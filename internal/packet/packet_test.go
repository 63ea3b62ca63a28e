// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	link = packet.Link{Src: packet.MAC{2, 0, 0, 0, 0, 1}, Dst: packet.MAC{2, 0, 0, 0, 0, 2}}
	src  = netip.MustParseAddr("192.168.127.1")
	dst  = netip.MustParseAddr("192.168.127.2")
)

// decode has gopacket read a frame and verify every checksum in it.
func decode(t *testing.T, frame []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{})
	require.Nil(t, p.ErrorLayer())
	if udp, ok := p.TransportLayer().(*layers.UDP); ok {
		require.NoError(t, udp.SetNetworkLayerForChecksum(p.NetworkLayer()))
	}
	err, wrong := p.VerifyChecksums()
	require.NoError(t, err)
	require.Empty(t, wrong)
	eth := p.LinkLayer().(*layers.Ethernet)
	require.Equal(t, net.HardwareAddr(link.Src[:]), eth.SrcMAC)
	require.Equal(t, net.HardwareAddr(link.Dst[:]), eth.DstMAC)
	return p
}

// serialize has gopacket build a frame with right lengths and checksums.
func serialize(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	require.NoError(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...))
	return slices.Clone(b.Bytes())
}

func ethernet(etherType layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: link.Src[:], DstMAC: link.Dst[:], EthernetType: etherType}
}

func ipv4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{
		Version: 4, TTL: 7, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
		Options: []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}},
	}
}

var payloads = map[string][]byte{
	"empty": {}, "odd": {1, 2, 3}, "even": {1, 2, 3, 4}, "ones": bytes.Repeat([]byte{0xff}, 1471),
	"large": bytes.Repeat([]byte{0xa5, 0xff, 3}, 21000),
}

func TestBuiltUDPIsReadByAnother(t *testing.T) {
	for name, payload := range payloads {
		from, to := netip.AddrPortFrom(src, 4000), netip.AddrPortFrom(dst, 4001)
		frame := packet.AppendUDP([]byte("kept"), link, from, to, payload)
		require.Equal(t, "kept", string(frame[:4]))
		p := decode(t, frame[4:])
		ip, udp := p.NetworkLayer().(*layers.IPv4), p.TransportLayer().(*layers.UDP)
		require.Equal(t, []string{"192.168.127.1", "192.168.127.2"}, []string{ip.SrcIP.String(), ip.DstIP.String()}, name)
		require.Equal(t, []layers.UDPPort{4000, 4001}, []layers.UDPPort{udp.SrcPort, udp.DstPort})
		require.NotZero(t, udp.Checksum)
		require.True(t, bytes.Equal(payload, udp.Payload), name)
	}
}

// A sum of 0 is sent as 0xffff: 0 would say that there is none (RFC 768).
func TestUDPChecksumIsNeverZero(t *testing.T) {
	from, to := netip.AddrPortFrom(src, 67), netip.AddrPortFrom(dst, 68)
	frame := packet.AppendUDP(nil, link, from, to, []byte{0, 0})
	sum := binary.BigEndian.Uint16(frame[14+20+6:])
	frame = packet.AppendUDP(nil, link, from, to, binary.BigEndian.AppendUint16(nil, sum)) // makes the total 0
	require.Equal(t, uint16(0xffff), binary.BigEndian.Uint16(frame[14+20+6:]))
	ip, ok := parseIPv4(frame)
	require.True(t, ok)
	_, ok = packet.ParseUDP(ip)
	require.True(t, ok)
}

func parseIPv4(frame []byte) (packet.IPv4, bool) {
	eth, _ := packet.ParseEthernet(frame)
	return packet.ParseIPv4(eth.Payload)
}

func TestUDPOfAnotherIsRead(t *testing.T) {
	for name, payload := range payloads {
		ip := ipv4(layers.IPProtocolUDP)
		udp := &layers.UDP{SrcPort: 1234, DstPort: 53}
		require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
		frame := serialize(t, ethernet(layers.EthernetTypeIPv4), ip, udp, gopacket.Payload(payload))
		frame = append(frame, make([]byte, 20)...) // padding is not payload

		eth, ok := packet.ParseEthernet(frame)
		require.True(t, ok)
		require.Equal(t, link, packet.Link{Src: eth.Src, Dst: eth.Dst})
		require.EqualValues(t, packet.EtherIPv4, eth.Type)
		p, ok := packet.ParseIPv4(eth.Payload)
		require.True(t, ok, name)
		require.Equal(t, []netip.Addr{src, dst}, []netip.Addr{p.Src, p.Dst})
		require.EqualValues(t, packet.ProtoUDP, p.Proto)
		require.EqualValues(t, 7, p.TTL)
		require.False(t, p.Fragment)
		require.Len(t, p.Header, 24)
		u, ok := packet.ParseUDP(p)
		require.True(t, ok, name)
		require.EqualValues(t, 1234, u.SrcPort)
		require.EqualValues(t, 53, u.DstPort)
		require.True(t, bytes.Equal(payload, u.Payload), name)
	}
}

func TestEcho(t *testing.T) {
	for name, data := range payloads {
		for _, reply := range []bool{false, true} {
			echo := packet.Echo{Reply: reply, ID: 0x1234, Seq: 0xfedc, Data: data}
			kind := layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0)
			if reply {
				kind = layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoReply, 0)
			}
			built := packet.AppendEcho(nil, link, src, dst, echo)
			icmp := decode(t, built).Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
			require.Equal(t, kind, icmp.TypeCode)
			require.Equal(t, []uint16{echo.ID, echo.Seq}, []uint16{icmp.Id, icmp.Seq})
			require.True(t, bytes.Equal(data, icmp.Payload), name)

			theirs := serialize(t, ethernet(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolICMPv4),
				&layers.ICMPv4{TypeCode: kind, Id: echo.ID, Seq: echo.Seq}, gopacket.Payload(data))
			for _, frame := range [][]byte{built, theirs} {
				ip, ok := parseIPv4(frame)
				require.True(t, ok)
				got, ok := packet.ParseEcho(ip)
				require.True(t, ok, name)
				require.Equal(t, echo, got)
			}
		}
	}
}

func TestUnreachableQuotesTheHeaderAndEightBytes(t *testing.T) {
	frame := packet.AppendUDP(nil, link, netip.AddrPortFrom(src, 1), netip.AddrPortFrom(dst, 2), []byte("what could not be delivered"))
	ip, _ := parseIPv4(frame)
	for name, payload := range map[string][]byte{"long": ip.Payload, "short": ip.Payload[:3], "none": nil} {
		icmp := decode(t, packet.AppendUnreachable(nil, link, dst, src, 3, ip.Header, payload)).Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		require.Equal(t, layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort), icmp.TypeCode)
		require.Equal(t, slices.Concat(ip.Header, payload[:min(8, len(payload))]), icmp.Payload, name)
	}
}

func TestARP(t *testing.T) {
	want := packet.ARP{Op: 2, SenderMAC: link.Src, Sender: src, TargetMAC: link.Dst, Target: dst}
	built := packet.AppendARP(nil, link, want)
	theirs := &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 2,
		SourceHwAddress: link.Src[:], SourceProtAddress: src.AsSlice(), DstHwAddress: link.Dst[:], DstProtAddress: dst.AsSlice(),
	}
	require.Equal(t, serialize(t, ethernet(layers.EthernetTypeARP), theirs)[:42], built)
	eth, _ := packet.ParseEthernet(append(built, make([]byte, 18)...))
	got, ok := packet.ParseARP(eth.Payload)
	require.True(t, ok)
	require.Equal(t, want, got)

	for i := range 28 { // any byte of the fixed part but the operation's
		wrong := bytes.Clone(built[14:])
		wrong[i] ^= 0x40
		_, ok := packet.ParseARP(wrong)
		require.Equal(t, i >= 6, ok, "byte %d", i)
		_, ok = packet.ParseARP(built[14 : 14+i])
		require.False(t, ok, "%d bytes", i)
	}
}

func TestMulticast(t *testing.T) {
	require.True(t, packet.Broadcast.Multicast())
	require.True(t, packet.MAC{1, 0, 0x5e}.Multicast())
	require.False(t, link.Src.Multicast())
}

// The header of RFC 1071's example in section 3, and one that is known from the
// wire.
func TestChecksumOfKnownVectors(t *testing.T) {
	for data, want := range map[string]uint16{
		"0001f203f4f5f6f7":                                   ^uint16(0xddf2),
		"45000073000040004011b861c0a80001c0a800c7":           0,
		"45000073000040004011" + "0000" + "c0a80001c0a800c7": 0xb861,
		"":   0xffff,
		"ff": ^uint16(0xff00),
	} {
		b, err := hex.DecodeString(data)
		require.NoError(t, err)
		require.Equal(t, want, packet.Checksum(0, b), data)
	}
}

// Every single bit that is wrong is noticed where a checksum covers it.
func TestFlippedBitsAreRefused(t *testing.T) {
	udp := packet.AppendUDP(nil, link, netip.AddrPortFrom(src, 67), netip.AddrPortFrom(dst, 68), []byte("payload"))
	echo := packet.AppendEcho(nil, link, src, dst, packet.Echo{ID: 1, Seq: 2, Data: []byte("payload")})
	for name, c := range map[string]struct {
		frame []byte
		ok    func(packet.IPv4) bool
	}{
		"udp":  {udp, func(p packet.IPv4) bool { _, ok := packet.ParseUDP(p); return ok }},
		"echo": {echo, func(p packet.IPv4) bool { _, ok := packet.ParseEcho(p); return ok }},
	} {
		for bit := 14 * 8; bit < len(c.frame)*8; bit++ {
			wrong := bytes.Clone(c.frame)
			wrong[bit/8] ^= 1 << (bit % 8)
			ip, ok := parseIPv4(wrong)
			require.False(t, ok && c.ok(ip), "%s: bit %d", name, bit)
		}
		for n := range len(c.frame) {
			ip, ok := parseIPv4(c.frame[:n])
			require.False(t, ok && c.ok(ip), "%s: %d bytes", name, n)
		}
	}
}

func TestUDPWithoutAChecksumIsTaken(t *testing.T) {
	frame := packet.AppendUDP(nil, link, netip.AddrPortFrom(src, 67), netip.AddrPortFrom(dst, 68), []byte("payload"))
	frame[14+20+6], frame[14+20+7] = 0, 0
	ip, _ := parseIPv4(frame)
	u, ok := packet.ParseUDP(ip)
	require.True(t, ok)
	require.Equal(t, "payload", string(u.Payload))
}

func TestFragmentsAreSeen(t *testing.T) {
	for name, c := range map[string]struct {
		flags  layers.IPv4Flag
		offset uint16
		want   bool
	}{
		"whole": {0, 0, false}, "don't fragment": {layers.IPv4DontFragment, 0, false},
		"first": {layers.IPv4MoreFragments, 0, true}, "middle": {layers.IPv4MoreFragments, 5, true}, "last": {0, 5, true},
	} {
		h := ipv4(layers.IPProtocolUDP)
		h.Flags, h.FragOffset = c.flags, c.offset
		udp := &layers.UDP{SrcPort: 1, DstPort: 2}
		require.NoError(t, udp.SetNetworkLayerForChecksum(h))
		ip, ok := parseIPv4(serialize(t, ethernet(layers.EthernetTypeIPv4), h, udp, gopacket.Payload("x")))
		require.True(t, ok)
		require.Equal(t, c.want, ip.Fragment, name)
		_, ok = packet.ParseUDP(ip)
		require.Equal(t, !c.want, ok, name)
	}
}
