// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
)

const gatewayMAC = "5a:94:ef:e4:0c:dd"

// testBarrier is what a guest must not reach: nothing of it may leave the host's
// switch, whatever the guest's kernel would send. The host would answer all of
// it, if it came.
func testBarrier(t *testing.T, p programs) {
	l := newLab(t, p)
	l.startGuest()
	const metadata = "169.254.169.254" // where a cloud keeps secrets
	l.host.run("ip", "addr", "add", metadata+"/32", "dev", "lo")
	l.host.run("ip", "addr", "add", "240.0.0.1/32", "dev", "lo")
	l.host.run("ip", "addr", "add", "192.168.127.77/32", "dev", "lo")
	serveHTTP(t, l.host, "0.0.0.0:8000")
	for _, a := range []string{metadata, "240.0.0.1", "192.168.127.77", "0.0.0.0"} {
		require.Equal(t, banner(l.host), l.host.run("curl", "-sS", "http://"+a+":8000"))
	}
	b := &barrier{guest: newWire(t, l.guest, "eth0"), host: []*wire{newWire(t, l.host, "lo"), newWire(t, l.host, "eth0")}}

	port := uint16(40000)
	var forbidden []probe
	for name, tc := range map[string]struct {
		addresses []string
		kernel    bool // the guest's kernel sends there without more ado
	}{
		"0/8":              {[]string{"0.0.0.0", "0.0.0.1"}, false},
		"127/8":            {[]string{"127.0.0.1", "127.1.2.3"}, false},
		"169.254/16":       {[]string{metadata, "169.254.0.1"}, true},
		"multicast":        {[]string{"224.0.0.1", "239.255.255.250"}, false},
		"240/4":            {[]string{"240.0.0.1", "255.255.255.254"}, true},
		"broadcast":        {[]string{"255.255.255.255"}, false},
		"unassigned":       {[]string{"192.168.127.77", "192.168.127.200"}, true},
		"subnet broadcast": {[]string{"192.168.127.255"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var probes []probe
			for _, a := range tc.addresses {
				port++
				probes = append(probes, probe{netip.MustParseAddr(a), port})
				b.send(probes[len(probes)-1])
				if tc.kernel {
					conn, err := l.guest.dial(t.Context(), "tcp4", a+":8000")
					if !assertError(t, err, a) {
						_ = conn.Close()
					}
				}
			}
			b.control(t, &port)
			for _, probe := range probes {
				b.requireNothing(t, probe)
			}
			forbidden = append(forbidden, probes...)
		})
	}
	// What took its time has come by now.
	for _, probe := range forbidden {
		b.requireNothing(t, probe)
	}
}

func assertError(t *testing.T, err error, address string) bool {
	t.Helper()
	if err == nil {
		t.Errorf("a connection to %s was accepted", address)
	}
	return err != nil
}

// A probe is a SYN, a datagram and an echo request to an address, all of them
// with the port in it.
type probe struct {
	to   netip.Addr
	port uint16
}

type barrier struct {
	guest *wire
	host  []*wire
}

func (b *barrier) send(p probe) {
	from := netip.MustParseAddr(guestAddr)
	b.guest.send(guestMAC, gatewayMAC, from, p.to, layers.IPProtocolTCP,
		&layers.TCP{SrcPort: layers.TCPPort(p.port), DstPort: layers.TCPPort(p.port), Seq: 1, SYN: true, Window: 1024})
	b.guest.send(guestMAC, gatewayMAC, from, p.to, layers.IPProtocolUDP,
		&layers.UDP{SrcPort: layers.UDPPort(p.port), DstPort: layers.UDPPort(p.port)}, gopacket.Payload(p.marker()))
	b.guest.send(guestMAC, gatewayMAC, from, p.to, layers.IPProtocolICMPv4,
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: p.port, Seq: 1}, gopacket.Payload(p.marker()))
}

func (p probe) marker() []byte {
	return []byte("probe " + netip.AddrPortFrom(p.to, p.port).String() + ".")
}

// left reports whether something of a probe was seen on the host's interfaces.
func (b *barrier) left(p probe, proto layers.IPProtocol) bool {
	for _, w := range b.host {
		if w.saw(func(ip *layers.IPv4, packet gopacket.Packet) bool {
			if tcp, ok := packet.TransportLayer().(*layers.TCP); ok {
				return proto == layers.IPProtocolTCP && uint16(tcp.DstPort) == p.port
			}
			return proto == ip.Protocol && bytes.Contains(ip.Payload, p.marker())
		}) {
			return true
		}
	}
	return false
}

// answered reports whether the guest was told that somebody is there.
func (b *barrier) answered(p probe) bool {
	return b.guest.saw(func(ip *layers.IPv4, packet gopacket.Packet) bool {
		if from, _ := netip.AddrFromSlice(ip.SrcIP); from != p.to {
			return false
		}
		switch l := packet.Layer(ip.NextLayerType()).(type) {
		case *layers.TCP:
			return l.SYN && l.ACK && uint16(l.DstPort) == p.port
		case *layers.UDP:
			return uint16(l.DstPort) == p.port
		case *layers.ICMPv4:
			return l.TypeCode.Type() == layers.ICMPv4TypeEchoReply && l.Id == p.port
		}
		return false
	})
}

func (b *barrier) requireNothing(t *testing.T, p probe) {
	t.Helper()
	for _, proto := range []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv4} {
		require.False(t, b.left(p, proto), "%v to %s left the host's switch", proto, p.to)
	}
	require.False(t, b.answered(p), "somebody answers for %s", p.to)
}

// control sends the same to where it may go, and waits until it came: this sees
// what it has to see, and what was sent before had its turn.
func (b *barrier) control(t *testing.T, port *uint16) {
	t.Helper()
	*port++
	world := probe{netip.MustParseAddr(worldAddr), *port}
	loopback := probe{netip.MustParseAddr(hostAlias), 8000}
	b.send(world)
	b.send(loopback)
	for _, proto := range []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv4} {
		require.Eventually(t, func() bool { return b.left(world, proto) }, patience, tick, "%v to the world", proto)
	}
	require.Eventually(t, func() bool { return b.answered(loopback) }, patience, tick, "nobody at the host's alias")
}
