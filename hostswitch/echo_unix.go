// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package hostswitch

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// echoSupported: Linux lets the groups in net.ipv4.ping_group_range send echo
// requests from a datagram socket (icmp(7)), macOS everyone.
const echoSupported = true

// echoConn is a ping socket to one address. Its datagrams are the sequence
// number and the data of an echo message.
type echoConn struct {
	pc *icmp.PacketConn
	to net.Addr
	id int // 0: any
	in []byte
}

func dialEcho(_ context.Context, to netip.Addr) (flowConn, error) {
	pc, err := icmp.ListenPacket("udp4", "0.0.0.0")
	if err != nil {
		return nil, err
	}
	c := &echoConn{pc: pc, to: &net.UDPAddr{IP: to.AsSlice()}, in: make([]byte, 64<<10)}
	if runtime.GOOS != "linux" { // Linux puts in an identifier of its own, and hands out its answers only
		c.id = 1 + rand.IntN(1<<16-1)
	}
	return c, nil
}

func (c *echoConn) Write(b []byte) (int, error) {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: c.id, Seq: int(b[0])<<8 | int(b[1]), Data: b[2:]}}
	wire, err := m.Marshal(nil)
	if err != nil {
		return 0, err
	}
	if _, err := c.pc.WriteTo(wire, c.to); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *echoConn) Read(b []byte) (int, error) {
	for {
		n, from, err := c.pc.ReadFrom(c.in)
		if err != nil {
			return 0, err
		}
		m, err := icmp.ParseMessage(1, c.in[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply || !from.(*net.UDPAddr).IP.Equal(c.to.(*net.UDPAddr).IP) {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && (c.id == 0 || e.ID == c.id) {
			return copy(b, append([]byte{byte(e.Seq >> 8), byte(e.Seq)}, e.Data...)), nil
		}
	}
}

func (c *echoConn) SetReadDeadline(t time.Time) error { return c.pc.SetReadDeadline(t) }

func (c *echoConn) Close() error { return c.pc.Close() }
