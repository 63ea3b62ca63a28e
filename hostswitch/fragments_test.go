// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// fragments cuts the packet in a frame after n bytes, a multiple of 8.
func fragments(f []byte, id uint16, n int) (first, second []byte) {
	const head = packet.EthernetLen + packet.IPv4Len
	first, second = slices.Clone(f[:head+n]), slices.Concat(f[:head], f[head+n:])
	for i, part := range [][]byte{first, second} {
		ip := part[packet.EthernetLen:head]
		binary.BigEndian.PutUint16(ip[2:], uint16(len(part)-packet.EthernetLen))
		binary.BigEndian.PutUint16(ip[4:], id)
		binary.BigEndian.PutUint16(ip[6:], []uint16{0x2000, uint16(n / 8)}[i])
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], packet.Checksum(0, ip))
	}
	return first, second
}

// The checksum of what comes in fragments is verified when it is whole, whatever
// else comes in meanwhile: of datagrams for the gateway and for the world.
func TestDatagramsInFragments(t *testing.T) {
	for name, to := range map[string]netip.AddrPort{
		"the gateway": netip.AddrPortFrom(gateway, 9999),
		"the world":   netip.AddrPortFrom(world, 9999),
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan []byte, 100)
			near, far := net.Pipe()
			sw := newSwitch(t, hostswitch.Config{DialOutbound: func(_ context.Context, network, address string) (net.Conn, error) {
				if network == "udp" {
					return near, nil
				}
				return new(net.Dialer).DialContext(t.Context(), network, address)
			}})
			pc, err := sw.ListenPacket("udp", "192.168.127.1:9999")
			require.NoError(t, err)
			collect := func(read func([]byte) (int, error)) {
				buf := make([]byte, 4096)
				for {
					n, err := read(buf)
					if err != nil {
						return
					}
					got <- slices.Clone(buf[:n])
				}
			}
			one := during(func() { collect(func(b []byte) (int, error) { n, _, err := pc.ReadFrom(b); return n, err }) })
			two := during(func() { collect(far.Read) })
			defer func() { _, _ = pc.Close(), far.Close(); <-one; <-two }()

			// The normal traffic, of whose checksums none is looked at again.
			busy := attach(t, sw, 3)
			server := hostTCP(t, echo)
			c := busy.dial(t, server)
			traffic := during(func() { _, _ = io.Copy(io.Discard, c) })
			stop := make(chan struct{})
			talk := during(func() {
				for b := make([]byte, 10_000); ; {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			})
			defer func() { close(stop); _ = c.Close(); <-talk; <-traffic }()

			g := attachRaw(t, sw, 2)
			require.Equal(t, gatewayMAC, g.resolve(t, gateway))
			const rounds = 50
			for i := range rounds {
				right := packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 5000), to, append(make([]byte, 999), byte(i)))
				wrong := slices.Clone(right)
				wrong[34+packet.UDPLen+i] ^= 0x55
				single := slices.Clone(wrong)
				w1, w2 := fragments(wrong, uint16(2*i), 504)
				r1, r2 := fragments(right, uint16(2*i+1), 8)
				for _, f := range [][]byte{single, w1, r2, w2, r1} {
					g.send(f)
				}
			}
			for i := range rounds { // and nothing else
				require.Equal(t, append(make([]byte, 999), byte(i)), await(t, got, "the right one"))
			}
			require.Equal(t, gatewayMAC, g.resolve(t, gateway))
			require.Empty(t, got)
		})
	}
}

// So it is for TCP.
func TestSegmentsInFragments(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	ln, err := sw.Listen("tcp", "192.168.127.1:7000")
	require.NoError(t, err)
	defer ln.Close() //nolint:errcheck // the end
	g := attachRaw(t, sw, 2)
	src, dst := netip.AddrPortFrom(g.addr, 4000), netip.AddrPortFrom(gateway, 7000)
	ack := g.shakeHands(t, src, dst)
	c, err := ln.Accept()
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // the end
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	send := func(id uint16, f []byte) {
		first, second := fragments(f, id, 24)
		g.send(second)
		g.send(first)
	}
	right := g.tcp(gatewayMAC, src, dst, 1, ack, tcpACK, nil, []byte("right"))
	wrong := g.tcp(gatewayMAC, src, dst, 1, ack, tcpACK, nil, []byte("wrong"))
	wrong[51] ^= 1
	send(1, wrong)
	send(2, right)
	b := make([]byte, 5)
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
	require.Equal(t, "right", string(b))
}
