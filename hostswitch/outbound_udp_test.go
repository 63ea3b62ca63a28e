// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// datagram sends one and returns the answer.
func datagram(t testing.TB, c net.Conn, payload []byte) []byte {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err := c.Write(payload)
	require.NoError(t, err)
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	require.NoError(t, err)
	return buf[:n]
}

func (g *guest) dialUDP(t testing.TB, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := g.DialUDP(netip.AddrPort{}, to)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Datagrams of every size cross, empty ones and such as take many frames too.
func TestOutboundUDP(t *testing.T) {
	g := attach(t, newSwitch(t, hostswitch.Config{}), 2)
	c := g.dialUDP(t, hostUDP(t))
	for _, n := range []int{0, 1, 1472, 1473, 4000, 65_507} {
		payload := bytes.Repeat([]byte{byte(n)}, n)
		require.Equal(t, payload, append([]byte{}, datagram(t, c, payload)...), "%d bytes", n)
	}
}

// deafUDP has a port of the host and takes nothing there, as if it were nobody's: it is
// connected to another.
func deafUDP(t *testing.T) *net.UDPConn {
	loopback := net.IPv4(127, 0, 0, 1)
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: loopback}, &net.UDPAddr{IP: loopback, Port: 9})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestOutboundUDPRefused(t *testing.T) {
	g := attach(t, newSwitch(t, hostswitch.Config{}), 2)
	port := deafUDP(t).LocalAddr().(*net.UDPAddr).AddrPort().Port()
	cases := map[string]netip.AddrPort{"on the gateway": netip.AddrPortFrom(gateway, 4711)}
	if runtime.GOOS != "windows" { // package net has it not say so there, https://go.dev/issue/5834
		cases["on the host"] = netip.AddrPortFrom(hostAlias, port)
	}
	for name, to := range cases {
		t.Run(name, func(t *testing.T) {
			c := g.dialUDP(t, to)
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			_, err := c.Write([]byte("anybody?"))
			require.NoError(t, err)
			_, err = c.Read(make([]byte, 1))
			require.ErrorIs(t, err, hostswitch.ErrRefused, "ICMP port unreachable")
		})
	}
}

// FAILURES 21, for datagrams: what the host's network says reaches the guest, and
// nothing has to be restarted.
func TestOutboundUDPUnreachable(t *testing.T) {
	down := make(chan struct{})
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case <-down:
			return new(net.Dialer).DialContext(ctx, network, address)
		default:
			return nil, hostswitch.ErrNetUnreachable
		}
	}})
	g := attach(t, sw, 2)
	server := hostUDP(t)
	icmp := g.watch(isProto(packet.ProtoICMP)) // its own stack tells sockets of ports only
	_, err := g.dialUDP(t, server).Write([]byte("x"))
	require.NoError(t, err)
	ip := ipv4Of(t, await(t, icmp, "ICMP"))
	require.Equal(t, []byte{3, 0}, ip.Payload[:2], "destination network unreachable")
	require.Equal(t, hostAlias, ip.Src)
	eventually(t, func() bool { return sw.Snapshot().Flows == 0 }, "the flow that failed is over")
	close(down)
	require.Equal(t, "y", string(datagram(t, g.dialUDP(t, server), []byte("y"))))
}

// FAILURES 24: the same addresses and ports work after their flow has expired.
// Port 53 is what expires soonest, after 10 s.
func TestOutboundUDPAfterExpiry(t *testing.T) {
	t.Parallel() // it waits
	server := hostUDP(t)
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.Port()).String())
	}})
	g := attach(t, sw, 2)
	c := g.dialUDP(t, netip.AddrPortFrom(world, 53))
	require.Equal(t, "first", string(datagram(t, c, []byte("first"))))
	require.Equal(t, 1, sw.Snapshot().Flows)
	eventually(t, func() bool { return sw.Snapshot().Flows == 0 }, "expiry")
	require.Equal(t, "second", string(datagram(t, c, []byte("second"))))
}

// FAILURES 23: the table of flows is bounded, for one guest to half of it, and who
// was silent for longest gives way.
func TestOutboundUDPIsBounded(t *testing.T) {
	const total, bound = 10_000, 1024
	var mu sync.Mutex
	open, opened := map[string]bool{}, 0
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(_ context.Context, _, address string) (net.Conn, error) {
		near, far := net.Pipe()
		mu.Lock()
		defer mu.Unlock()
		open[address] = true
		opened++
		return &tracked{Conn: near, closed: func() {
			_ = far.Close()
			mu.Lock()
			defer mu.Unlock()
			delete(open, address)
		}}, nil
	}})
	g := attachRaw(t, sw, 2)
	for i := range total {
		port := uint16(1000 + i)
		g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, port), netip.AddrPortFrom(world, port), []byte("x")))
	}
	want := map[string]bool{}
	for i := total - bound; i < total; i++ {
		want[fmt.Sprintf("%s:%d", world, 1000+i)] = true
	}
	var got map[string]bool
	eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		got = map[string]bool{}
		for a := range open {
			got[a] = true
		}
		return opened == total && len(got) == bound
	}, "the flood")
	require.Equal(t, want, got)
	require.Equal(t, bound, sw.Snapshot().Flows)
	require.NoError(t, sw.Close())
	require.Empty(t, open)
}

// tracked is a connection that tells of its end.
type tracked struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *tracked) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.closed)
	return err
}
