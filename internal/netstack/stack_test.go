// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

func TestCloseEndsWhatTheStackHasMade(t *testing.T) {
	p := newPair(t, 1500)
	g, r := p.connect(t)
	ln, err := p.router.ListenTCP(netip.AddrPortFrom(routerAddr, 0))
	require.NoError(t, err)
	pc, err := p.router.ListenUDP(netip.AddrPortFrom(routerAddr, 0))
	require.NoError(t, err)
	var blocked sync.WaitGroup
	for name, call := range map[string]func() error{
		"read":     func() error { _, err := r.Read(make([]byte, 1)); return err },
		"accept":   func() error { _, err := ln.Accept(); return err },
		"readfrom": func() error { _, _, err := pc.ReadFrom(make([]byte, 1)); return err },
		"dial": func() error {
			_, err := p.router.DialTCP(withTimeout(t), netip.AddrPort{}, netip.MustParseAddrPort("192.168.127.99:1"))
			return err
		},
	} {
		blocked.Go(func() {
			if err := call(); !isClosed(err) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	var closing sync.WaitGroup
	for range 3 {
		closing.Go(p.router.Close)
	}
	await(t, during(closing.Wait), "Close, thrice")
	await(t, during(blocked.Wait), "blocked calls")

	_, err = g.Read(make([]byte, 1))
	require.Error(t, err, "the peer is told")
	require.NotErrorIs(t, err, io.EOF, "and not that this was all")

	_, err = p.router.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(guestAddr, 1))
	require.ErrorIs(t, err, netstack.ErrClosed)
	_, err = p.router.ListenTCP(netip.AddrPortFrom(routerAddr, 1))
	require.ErrorIs(t, err, netstack.ErrClosed)
	_, err = p.router.ListenUDP(netip.AddrPortFrom(routerAddr, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = r.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	require.Error(t, p.router.WriteUDP(netip.AddrPortFrom(routerAddr, 1), netip.AddrPortFrom(guestAddr, 1), nil))
	p.router.Deliver(segment(netip.AddrPortFrom(guestAddr, 1), netip.AddrPortFrom(routerAddr, 1), syn, 1, 0))
	for _, c := range []io.Closer{g, r, ln, pc} {
		require.NoError(t, c.Close())
	}
}

// Whatever state its connections are in, Close leaves no goroutine (goleak) and
// no timer: a timer would hold on to the stack, and with it to its Output.
func TestCloseLetsGoOfEverything(t *testing.T) {
	for name, play := range map[string]func(p *pair, g, r *netstack.Conn){
		"established": func(*pair, *netstack.Conn, *netstack.Conn) {},
		"time-wait":   func(_ *pair, g, r *netstack.Conn) { _, _ = r.Close(), g.Close() },
		"fin-wait-2":  func(_ *pair, _, r *netstack.Conn) { _ = r.Close() },
		"fin-wait-1":  func(p *pair, _, r *netstack.Conn) { p.unplug(); _ = r.Close() },
		"close-wait":  func(_ *pair, g, _ *netstack.Conn) { _ = g.Close() },
		"last-ack": func(p *pair, g, r *netstack.Conn) {
			_ = g.CloseWrite()
			_, _ = r.Read(make([]byte, 1))
			p.unplug()
			_ = r.Close()
		},
		"unsent": func(p *pair, _, r *netstack.Conn) {
			p.unplug()
			_, _ = r.Write(make([]byte, 100_000))
			_ = r.Close()
		},
		"dialling": func(p *pair, _, _ *netstack.Conn) {
			p.unplug()
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			_, _ = p.router.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(guestAddr, 1))
		},
		"fragments": func(p *pair, _, _ *netstack.Conn) {
			whole := packet.AppendUDP(nil, packet.Link{Src: guestMAC, Dst: routerMAC}, netip.AddrPortFrom(guestAddr, 1), netip.AddrPortFrom(routerAddr, 1), make([]byte, 80))
			ip := whole[packet.EthernetLen:]
			copy(ip[6:], []byte{0x20, 0, 64, packet.ProtoUDP, 0, 0}) // more follow, but do not
			binary.BigEndian.PutUint16(ip[10:], packet.Checksum(0, ip[:packet.IPv4Len]))
			p.router.Deliver(whole)
		},
	} {
		t.Run(name, func(t *testing.T) {
			left := func() weak.Pointer[[1 << 10]byte] { // a frame of its own: nothing of it stays on the stack
				p := newUnownedPair(t, 1500)
				defer p.close()
				g, r := p.connect(t)
				play(p, g, r)
				return weak.Make(p.marker)
			}()
			require.Eventually(t, func() bool { runtime.GC(); return left.Value() == nil }, patience, time.Millisecond)
		})
	}
}

// FAILURES 15 and 29, as far as the stack goes: Close does not wait for anybody.
func TestCloseAmidTraffic(t *testing.T) {
	for range 10 {
		p := newPair(t, 1500)
		p.router.HandleTCP(func(_ context.Context, r *netstack.Request) {
			if c, err := r.Accept(); err == nil {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}
		})
		p.router.HandleUDP(func(_ uint64, src, dst netip.AddrPort, payload []byte) bool {
			return p.router.WriteUDP(dst, src, payload) == nil
		})
		var users sync.WaitGroup
		flowing := make(chan struct{}, 8)
		for i := range 4 {
			users.Go(func() {
				for b := make([]byte, 1<<16); ; {
					c, err := p.guest.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(worldAddr, uint16(80+i)))
					if isClosed(err) {
						return
					}
					if err != nil {
						continue
					}
					_, err = c.Write(b)
					_, err2 := c.Read(b)
					_ = c.Close()
					if err != nil || err2 != nil {
						continue
					}
					select {
					case flowing <- struct{}{}:
					default:
					}
				}
			})
			users.Go(func() {
				c, err := p.guest.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(worldAddr, uint16(80+i)))
				for err == nil {
					if _, err = c.Write(make([]byte, 3000)); err == nil {
						_, err = c.Read(make([]byte, 3000)) // one at a time: else there were room for nothing else
					}
				}
			})
		}
		for range 8 {
			select {
			case <-flowing:
			case <-time.After(patience):
				t.Fatal("nothing flows")
			}
		}
		await(t, during(p.router.Close), "Close of the router")
		await(t, during(p.guest.Close), "Close of the guest")
		await(t, during(users.Wait), "users")
	}
}

// A guest that has too little room to receive gets everything all the same.
func TestLossDelaysButDoesNotDamage(t *testing.T) {
	p := newPairOver(t, 1500, 20_000)
	defer p.close()
	g, r := p.connect(t)
	sent := make([]byte, 2<<20)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	done := during(func() {
		_, _ = r.Write(sent)
		_ = r.Close()
	})
	got, err := io.ReadAll(g)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))
	await(t, done, "Write")
	require.NoError(t, g.Close())
}

// FAILURES 14.
func TestStacksComeAndGoWithoutTrace(t *testing.T) {
	cycle := func() {
		p := newUnownedPair(t, 1500)
		defer p.close()
		p.router.HandleTCP(func(_ context.Context, r *netstack.Request) {
			if c, err := r.Accept(); err == nil {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := p.guest.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(worldAddr, 80))
		require.NoError(t, err)
		_, err = c.Write([]byte("echo"))
		require.NoError(t, err)
		_, err = io.ReadFull(c, make([]byte, 4))
		require.NoError(t, err)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // what the first has only marked as unused in pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	for range 10 {
		cycle()
	}
	goroutines, before := runtime.NumGoroutine(), heap()
	for range 300 {
		cycle()
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+1 }, patience, time.Millisecond, "one is this function's")
	require.Less(t, heap(), before+1<<20)
}

func TestARPSpeaksForOwnAddressesOnly(t *testing.T) {
	r := newRaw(t)
	extra := netip.MustParseAddr("192.168.127.254")
	require.NoError(t, r.AddAddress(netip.PrefixFrom(extra, 24)))
	ask := func(target netip.Addr) {
		r.Deliver(packet.AppendARP(nil, packet.Link{Src: guestMAC, Dst: packet.Broadcast},
			packet.ARP{Op: 1, SenderMAC: guestMAC, Sender: guestAddr, Target: target}))
	}
	next := func() packet.ARP {
		e, ok := packet.ParseEthernet(<-r.out)
		require.True(t, ok)
		require.EqualValues(t, packet.EtherARP, e.Type)
		a, ok := packet.ParseARP(e.Payload)
		require.True(t, ok)
		return a
	}
	require.Equal(t, routerAddr, next().Sender, "the answer to newRaw")
	ask(worldAddr)
	ask(netip.MustParseAddr("192.168.127.3"))
	ask(routerAddr)
	require.Equal(t, routerAddr, next().Sender, "the others are not ours")
	ask(extra)
	a := next()
	require.Equal(t, extra, a.Sender)
	require.Equal(t, routerMAC, a.SenderMAC)
	require.NoError(t, r.RemoveAddress(extra))
	ask(extra)

	// A packet with a foreign source asks for its neighbor in our own name.
	require.NoError(t, r.WriteUDP(netip.AddrPortFrom(worldAddr, 53), netip.MustParseAddrPort("192.168.127.9:5"), nil))
	a = next()
	require.EqualValues(t, 1, a.Op)
	require.Equal(t, routerAddr, a.Sender)
	require.Equal(t, netip.MustParseAddr("192.168.127.9"), a.Target)
}

func TestFramesForOthersAreNotTaken(t *testing.T) {
	r := newRaw(t)
	got := make(chan string, 4)
	r.HandleUDP(func(_ uint64, _, _ netip.AddrPort, payload []byte) bool { got <- string(payload); return true })
	for _, tt := range []struct {
		dst  packet.MAC
		text string
	}{{packet.MAC{2, 3, 4, 5, 6, 7}, "another's"}, {packet.Broadcast, "everybody's"}, {routerMAC, "ours"}} {
		r.Deliver(packet.AppendUDP(nil, packet.Link{Src: guestMAC, Dst: tt.dst},
			netip.AddrPortFrom(guestAddr, 1), netip.AddrPortFrom(worldAddr, 2), []byte(tt.text)))
	}
	require.Equal(t, "everybody's", <-got)
	require.Equal(t, "ours", <-got)
}

func TestNeighborsAreKnown(t *testing.T) {
	p := newPair(t, 1500)
	g, _ := p.connect(t)
	defer func() { _ = g.Close() }()
	var n []netstack.Neighbor
	require.Eventually(t, func() bool { n = p.guest.Neighbors(); return len(n) == 1 && n[0].MAC != nil }, patience, time.Millisecond)
	require.Equal(t, routerAddr, n[0].Addr)
	require.Equal(t, net.HardwareAddr(routerMAC[:]), n[0].MAC)
	require.Equal(t, "Reachable", n[0].State, "the answer to a question counts as one")
}

func TestMTUBoundsWhatIsSent(t *testing.T) {
	r := newRaw(t)
	at, to := netip.AddrPortFrom(routerAddr, 1), netip.AddrPortFrom(guestAddr, 1)
	for _, mtu := range []int{1500, 600} {
		r.SetMTU(mtu)
		require.NoError(t, r.WriteUDP(at, to, make([]byte, 2000)))
		for rest := 2000 + packet.UDPLen; rest > 0; {
			p := r.next(t, packet.ProtoUDP)
			require.LessOrEqual(t, len(p.Header)+len(p.Payload), mtu)
			rest -= len(p.Payload)
		}
	}
}

// Frames of any content neither panic nor keep the stack from serving others.
func FuzzDeliver(f *testing.F) {
	r := newRaw(f)
	r.HandleTCP(func(_ context.Context, q *netstack.Request) { q.Refuse() })
	r.HandleUDP(func(_ uint64, _, _ netip.AddrPort, _ []byte) bool { return false })
	ln, err := r.ListenTCP(netip.AddrPortFrom(routerAddr, 80))
	require.NoError(f, err)
	f.Cleanup(func() { _ = ln.Close() })
	link := packet.Link{Src: guestMAC, Dst: routerMAC}
	guest, router := netip.AddrPortFrom(guestAddr, 1), netip.AddrPortFrom(routerAddr, 80)
	for _, frame := range [][]byte{
		nil,
		routerMAC[:],
		segment(guest, router, syn, 1, 0),
		segment(guest, netip.AddrPortFrom(worldAddr, 1), syn, 1, 0),
		packet.AppendUDP(nil, link, guest, router, []byte("hello")),
		packet.AppendEcho(nil, link, guestAddr, routerAddr, packet.Echo{Data: []byte("hello")}),
		packet.AppendARP(nil, link, packet.ARP{Op: 1, SenderMAC: guestMAC, Sender: guestAddr, Target: routerAddr}),
		packet.AppendUnreachable(nil, link, guestAddr, routerAddr, 3, segment(guest, router, syn, 1, 0)[14:34], make([]byte, 8)),
	} {
		f.Add(frame)
		for _, n := range []int{13, 14, 20, 33, 34, 41} {
			f.Add(frame[:min(n, len(frame))])
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		r.Deliver(frame)
		if len(frame) >= packet.EthernetLen { // once more where the stack looks further
			copy(frame, routerMAC[:])
			r.Deliver(frame)
		}
		for len(r.out) > 0 {
			<-r.out
		}
	})
}
