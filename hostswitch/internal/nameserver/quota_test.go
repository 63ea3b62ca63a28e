// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
)

// datagrams is a PacketConn of packets from anywhere.
type datagrams struct {
	net.PacketConn // for Close
	closed         chan struct{}
	in             chan datagram
	out            chan netip.Addr
}

type datagram struct {
	from netip.Addr
	wire []byte
}

func (d *datagrams) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-d.in:
		return copy(b, p.wire), net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.from, 1024)), nil
	case <-d.closed:
		return 0, nil, net.ErrClosed
	}
}

func (d *datagrams) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case d.out <- to.(*net.UDPAddr).AddrPort().Addr().Unmap():
	default:
	}
	return len(b), nil
}

func (d *datagrams) SetWriteDeadline(time.Time) error { return nil }

func (d *datagrams) Close() error { close(d.closed); return nil }

// connections is a Listener with connections from anywhere.
type connections struct {
	net.Listener
	closed chan struct{}
	in     chan net.Conn
}

func (c *connections) Accept() (net.Conn, error) {
	select {
	case conn := <-c.in:
		return conn, nil
	case <-c.closed:
		return nil, net.ErrClosed
	}
}

func (c *connections) Close() error { close(c.closed); return nil }

type connFrom struct {
	net.Conn
	from netip.Addr
}

func (c connFrom) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.from, 1024))
}

func (c *connections) dial(t *testing.T, from netip.Addr) *dns.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	require.NoError(t, ours.SetDeadline(time.Now().Add(limit)))
	c.in <- connFrom{theirs, from}
	return &dns.Conn{Conn: ours}
}

// serveSources is a server of which every guest may have 2 of 4 queries and 3 of
// 4 connections.
func serveSources(t *testing.T, resolver nameserver.Resolver) (*nameserver.Server, *datagrams, *connections) {
	t.Helper()
	s, err := nameserver.New(nameserver.Config{
		Zones: zones, Resolver: resolver, Timeout: limit, IdleTimeout: limit,
		MaxInFlight: 4, MaxPerSource: 2, MaxStreams: 4, MaxStreamsPerSource: 3,
	})
	require.NoError(t, err)
	pc := &datagrams{closed: make(chan struct{}), in: make(chan datagram), out: make(chan netip.Addr, 100)}
	ln := &connections{closed: make(chan struct{}), in: make(chan net.Conn)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- s.ServePacket(ctx, pc) }()
	go func() { done <- s.ServeStream(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
	})
	return s, pc, ln
}

func TestOneGuestDoesNotTakeAllQueries(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	s, pc, ln := serveSources(t, g)
	busy, quiet := ip("192.168.127.2"), ip("192.168.127.3")
	wire, err := query("slow.test.", dns.TypeA).Pack()
	require.NoError(t, err)
	for range 20 {
		pc.in <- datagram{busy, wire}
	}
	for range 2 { // its connections have no share of their own
		conn := ln.dial(t, busy)
		for range 5 {
			require.NoError(t, conn.WriteMsg(query("slow.test.", dns.TypeA)))
		}
		require.NoError(t, conn.WriteMsg(query("host.docker.internal.", dns.TypeA)))
		m, err := conn.ReadMsg()
		require.NoError(t, err)
		require.Equal(t, "host.docker.internal.", m.Question[0].Name)
	}
	require.Eventually(t, func() bool { return s.Stats().Dropped == 18 && g.entered.Load() == 2 }, limit, time.Millisecond)

	pc.in <- datagram{netip.AddrFrom16(quiet.As16()), wire} // as a socket of both families says it
	require.Eventually(t, func() bool { return g.entered.Load() == 3 }, limit, time.Millisecond)
	conn := ln.dial(t, quiet)
	require.NoError(t, conn.WriteMsg(query("slow.test.", dns.TypeA)))
	require.Eventually(t, func() bool { return g.entered.Load() == 4 }, limit, time.Millisecond)
	require.EqualValues(t, 18, s.Stats().Dropped)
	pc.in <- datagram{quiet, wire}
	require.Eventually(t, func() bool { return s.Stats().Dropped == 19 }, limit, time.Millisecond)

	close(g.open)
	require.ElementsMatch(t, []netip.Addr{busy, busy, quiet}, []netip.Addr{<-pc.out, <-pc.out, <-pc.out})
	_, err = conn.ReadMsg()
	require.NoError(t, err)
	require.Eventually(t, func() bool { // a slot is free again shortly after its answer
		pc.in <- datagram{busy, wire}
		return len(pc.out) > 0
	}, limit, time.Millisecond, "it may ask again")
}

func TestOneGuestDoesNotTakeAllConnections(t *testing.T) {
	s, _, ln := serveSources(t, nil)
	works := func(conn *dns.Conn) bool {
		if conn.WriteMsg(query("host.docker.internal.", dns.TypeA)) != nil {
			return false
		}
		_, err := conn.ReadMsg()
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		return err == nil
	}
	busy, quiet := ip("192.168.127.2"), ip("192.168.127.3")
	first := ln.dial(t, busy)
	require.True(t, works(first))
	for i := range 4 {
		require.Equal(t, i < 2, works(ln.dial(t, busy)))
	}
	require.True(t, works(ln.dial(t, quiet)))
	require.False(t, works(ln.dial(t, quiet)), "they are all in use")
	require.EqualValues(t, 3, s.Stats().Dropped)
	require.NoError(t, first.Close())
	require.Eventually(t, func() bool { return works(ln.dial(t, busy)) }, limit, time.Millisecond)
}

func TestLimitsOfASource(t *testing.T) {
	for _, cfg := range []nameserver.Config{{MaxPerSource: -1}, {MaxStreamsPerSource: -1}} {
		_, err := nameserver.New(cfg)
		require.ErrorContains(t, err, "PerSource")
	}
	// A share is neither none nor more than all.
	for _, cfg := range []nameserver.Config{{MaxInFlight: 1}, {MaxInFlight: 1, MaxPerSource: 1 << 40}} {
		cfg.Resolver = nowhere
		s, err := nameserver.New(cfg)
		require.NoError(t, err)
		require.Equal(t, "YXDOMAIN", rcode(answer(t, s, "udp", query("x.test.", dns.TypeA))))
	}
}
