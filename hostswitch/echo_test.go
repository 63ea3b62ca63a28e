// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// answered sends frames, and then an echo request to the gateway; it returns who
// answered before the gateway did.
func answered(t testing.TB, g *guest, frames ...[]byte) (from []netip.Addr) {
	t.Helper()
	seen := g.watch(isProto(packet.ProtoICMP))
	require.Equal(t, gatewayMAC, g.resolve(t, gateway)) // and the gateway knows us
	for _, f := range frames {
		g.send(f)
	}
	g.send(packet.AppendEcho(nil, g.toGateway(), g.addr, gateway, packet.Echo{ID: 0xffff, Seq: 99}))
	for {
		ip := ipv4Of(t, await(t, seen, "echo of the gateway"))
		e, ok := packet.ParseEcho(ip)
		if ok && e.Reply && e.ID == 0xffff {
			require.Equal(t, gateway, ip.Src)
			require.EqualValues(t, 99, e.Seq)
			return from
		}
		from = append(from, ip.Src)
	}
}

// Who answers an echo, and who must not: a false answer is worse than none. That
// the world's answers come through, where the system lets, is shown against a
// real one in internal/e2e.
func TestEcho(t *testing.T) {
	ping := func(to netip.Addr, link func(*guest) packet.Link) func(*guest) [][]byte {
		return func(g *guest) [][]byte {
			return [][]byte{packet.AppendEcho(nil, link(g), g.addr, to, packet.Echo{ID: 1, Seq: 1, Data: []byte("data")})}
		}
	}
	direct, broadcast := (*guest).toGateway, (*guest).toAll
	fragments := func(to netip.Addr) func(*guest) [][]byte {
		return func(g *guest) [][]byte {
			whole := packet.AppendEcho(nil, g.toGateway(), g.addr, to, packet.Echo{ID: 1, Seq: 1, Data: make([]byte, 24)})[34:]
			return [][]byte{
				ipv4Frame(g.toGateway(), g.addr, to, packet.ProtoICMP, 0x2000, whole[:16]),
				ipv4Frame(g.toGateway(), g.addr, to, packet.ProtoICMP, 2, whole[16:]),
			}
		}
	}
	for name, tc := range map[string]struct {
		frames func(*guest) [][]byte
		want   []netip.Addr
	}{
		"gateway":                            {ping(gateway, direct), []netip.Addr{gateway}},
		"host alias":                         {ping(hostAlias, direct), []netip.Addr{hostAlias}},
		"unassigned":                         {ping(guestAddr(77), direct), nil},
		"network":                            {ping(guestAddr(0), direct), nil},
		"broadcast":                          {ping(guestAddr(255), direct), nil},
		"everybody":                          {ping(netip.MustParseAddr("255.255.255.255"), direct), nil},
		"loopback":                           {ping(netip.MustParseAddr("127.0.0.1"), direct), nil},
		"link-local":                         {ping(netip.MustParseAddr("169.254.169.254"), direct), nil},
		"nobody":                             {ping(netip.IPv4Unspecified(), direct), nil},
		"multicast":                          {ping(netip.MustParseAddr("224.0.0.1"), direct), nil},
		"reserved":                           {ping(netip.MustParseAddr("240.0.0.1"), direct), nil},
		"world that does not answer":         {ping(world, direct), nil},
		"fragments, gateway":                 {fragments(gateway), []netip.Addr{gateway}},
		"fragments, world":                   {fragments(world), nil},
		"fragments, loopback":                {fragments(netip.MustParseAddr("127.0.0.1")), nil},
		"in a broadcast frame, to the world": {ping(world, broadcast), nil},
		"in a broadcast frame, to loopback":  {ping(netip.MustParseAddr("127.0.0.1"), broadcast), nil},
		"in a broadcast frame, to an own address": {ping(guestAddr(77), broadcast), nil},
	} {
		t.Run(name, func(t *testing.T) {
			// No echo leaves this host: what the world is translated to cannot be
			// asked by an ordinary socket.
			sw := newSwitch(t, hostswitch.Config{NAT: map[netip.Addr]netip.Addr{
				hostAlias: netip.MustParseAddr("127.0.0.1"), world: netip.MustParseAddr("255.255.255.255"),
			}})
			g := attachRaw(t, sw, 2)
			require.Equal(t, tc.want, answered(t, g, tc.frames(g)...))
		})
	}
}

// What comes in a broadcast frame is for the neighbours, whatever address it has:
// no way around the source check, and none to the world.
func TestBroadcastFramesGoNowhere(t *testing.T) {
	dialled := make(chan string, 16)
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(_ context.Context, network, address string) (net.Conn, error) {
		dialled <- network + " " + address
		return nil, net.ErrClosed
	}})
	g := attachRaw(t, sw, 2)
	for _, src := range []netip.Addr{g.addr, world} {
		syn := g.syn(netip.AddrPortFrom(src, 1000), netip.AddrPortFrom(world, 80))
		copy(syn, packet.Broadcast[:])
		g.send(syn)
		g.send(packet.AppendUDP(nil, g.toAll(), netip.AddrPortFrom(src, 1000), netip.AddrPortFrom(world, 80), []byte("x")))
	}
	require.Empty(t, answered(t, g))
	g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 1000), netip.AddrPortFrom(world, 81), []byte("x")))
	require.Equal(t, "udp 198.51.100.7:81", await(t, dialled, "what was sent last"))
	require.NoError(t, sw.Close())
	require.Empty(t, dialled)
}
