// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// patience only bounds how long a broken test hangs.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	subnet     = netip.MustParsePrefix("192.168.127.0/24")
	routerAddr = netip.MustParseAddr("192.168.127.1")
	guestAddr  = netip.MustParseAddr("192.168.127.2")
	worldAddr  = netip.MustParseAddr("198.51.100.7")
	routerMAC  = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd}
	guestMAC   = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
)

// A pair is a router and a guest on one cable.
type pair struct {
	router, guest *netstack.Stack
	unplug        func() // no frame passes afterwards
	gate          *gate  // of the router, to the guest
	marker        *[1 << 10]byte
}

func newPair(t testing.TB, mtu int) *pair {
	p := newUnownedPair(t, mtu)
	t.Cleanup(p.close)
	return p
}

func (p *pair) close() {
	p.guest.Close() // before the cable: they say goodbye
	p.router.Close()
	p.unplug()
}

// newUnownedPair returns a pair that the caller closes.
func newUnownedPair(t testing.TB, mtu int) *pair { return newPairOver(t, mtu, 4<<20) }

// newPairOver has queues of that many bytes: what does not fit is lost.
func newPairOver(t testing.TB, mtu, queue int) *pair {
	toRouter, toGuest := frame.NewQueue(queue), frame.NewQueue(queue)
	p := &pair{gate: newGate(), marker: new([1 << 10]byte)}
	marker := p.marker
	output := func(_ packet.MAC, h frame.Header, parts [][]byte) {
		runtime.KeepAlive(marker)
		toGuest.PutOffload(h, parts...)
	}
	p.router = newStack(t, netstack.Config{MTU: mtu, MAC: routerMAC[:], Output: output, Peer: p.gate.peer, Router: true}, routerAddr, netip.Addr{})
	p.guest = newStack(t, netstack.Config{MTU: mtu, MAC: guestMAC[:], Output: put(toRouter)}, guestAddr, routerAddr)
	var wires sync.WaitGroup
	var ends []io.Closer
	for _, w := range []struct {
		q  *frame.Queue
		to *netstack.Stack
	}{{toRouter, p.router}, {toGuest, p.guest}} {
		in, out := net.Pipe()
		ends = append(ends, in, out)
		wires.Go(func() { _ = w.q.Drain(in) })
		wires.Go(func() {
			for r := frame.NewReader(out); ; {
				f, err := r.Next()
				if err != nil {
					return
				}
				w.to.Deliver(f)
			}
		})
	}
	p.unplug = func() {
		toRouter.Close()
		toGuest.Close()
		for _, c := range ends {
			_ = c.Close()
		}
		wires.Wait()
	}
	return p
}

func put(q *frame.Queue) func(packet.MAC, frame.Header, [][]byte) {
	return func(_ packet.MAC, h frame.Header, parts [][]byte) { q.PutOffload(h, parts...) }
}

func newStack(t testing.TB, cfg netstack.Config, addr, gateway netip.Addr) *netstack.Stack {
	s, err := netstack.New(cfg)
	require.NoError(t, err)
	require.NoError(t, s.AddAddress(netip.PrefixFrom(addr, subnet.Bits())))
	require.NoError(t, s.SetRoutes(subnet, gateway))
	return s
}

// A raw peer is a router whose other end is the test itself.
type raw struct {
	*netstack.Stack
	out chan []byte
}

func newRaw(t testing.TB) *raw {
	r := &raw{out: make(chan []byte, 8192)}
	r.Stack = newStack(t, netstack.Config{MTU: 1500, MAC: routerMAC[:], Router: true, Peer: newGate().peer, Output: func(_ packet.MAC, h frame.Header, parts [][]byte) {
		var f []byte
		for _, p := range parts {
			f = append(f, p...)
		}
		h.Complete(f) // none is long enough to be segmented
		select {
		case r.out <- f:
		default:
		}
	}}, routerAddr, netip.Addr{})
	t.Cleanup(r.Close)
	r.learn(guestAddr)
	return r
}

// learn makes the stack know where addr is.
func (r *raw) learn(addr netip.Addr) {
	r.Deliver(packet.AppendARP(nil, packet.Link{Src: guestMAC, Dst: packet.Broadcast},
		packet.ARP{Op: 1, SenderMAC: guestMAC, Sender: addr, Target: routerAddr}))
}

// next returns the next packet of that protocol that the stack sends.
func (r *raw) next(t testing.TB, proto uint8) packet.IPv4 {
	t.Helper()
	for {
		select {
		case f := <-r.out:
			e, ok := packet.ParseEthernet(f)
			require.True(t, ok)
			if e.Type != packet.EtherIPv4 {
				continue
			}
			p, ok := packet.ParseIPv4(e.Payload)
			require.True(t, ok, "the stack sends sound headers")
			if p.Proto == proto {
				return p
			}
		case <-time.After(patience):
			t.Fatal("the stack sends nothing")
		}
	}
}

const (
	fin = 1 << iota
	syn
	rst
	_
	ack
)

// segment returns a frame with an empty TCP segment from the guest.
func segment(src, dst netip.AddrPort, flags byte, seq, acked uint32) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], acked)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 65535)
	pseudo := append(append(append([]byte(nil), src.Addr().AsSlice()...), dst.Addr().AsSlice()...), 0, packet.ProtoTCP, 0, 20)
	binary.BigEndian.PutUint16(b[16:], packet.Checksum(0, append(pseudo, b...)))

	ip := []byte{0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, packet.ProtoTCP, 0, 0}
	ip = append(append(ip, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], packet.Checksum(0, ip))
	f := append(append(append([]byte(nil), routerMAC[:]...), guestMAC[:]...), 0x08, 0x00)
	return append(append(f, ip...), b...)
}

func withTimeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// await fails the test if done is not closed in time.
func await(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("still waiting: " + what)
	}
}

// during runs f elsewhere, and returns a channel that is closed when it is done.
func during(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return done
}
