// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

func TestHandlerAcceptsForAnyAddress(t *testing.T) {
	p := newPair(t, 1500)
	p.router.HandleTCP(func(_ context.Context, r *netstack.Request) {
		c, err := r.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		if _, err := r.Accept(); !isClosed(err) {
			t.Errorf("second answer: %v", err)
		}
		r.Refuse() // too late, without effect
		defer func() { _ = c.Close() }()
		_, _ = c.Write([]byte(r.Src.String() + " to " + r.Dst.String() + " at " + c.LocalAddr().String()))
	})
	c, err := p.guest.DialTCP(withTimeout(t), netip.AddrPort{}, netip.AddrPortFrom(worldAddr, 80))
	require.NoError(t, err)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, c.LocalAddr().String()+" to 198.51.100.7:80 at 198.51.100.7:80", string(got))
	require.NoError(t, c.Close())
}

func TestRequestThatIsRefusedIsReset(t *testing.T) {
	r := newRaw(t)
	r.HandleTCP(func(_ context.Context, q *netstack.Request) { q.Refuse() })
	r.Deliver(segment(netip.AddrPortFrom(guestAddr, 1000), netip.AddrPortFrom(worldAddr, 80), syn, 77, 0))
	h := r.next(t, packet.ProtoTCP).Payload
	require.Equal(t, byte(rst|ack), h[13]&(rst|ack|syn))
	require.Equal(t, uint32(78), binary.BigEndian.Uint32(h[8:]), "it acknowledges the request (RFC 9293)")
}

func TestRequestThatIsNotAnsweredMayBeRepeated(t *testing.T) {
	r := newRaw(t)
	asked := make(chan struct{})
	r.HandleTCP(func(_ context.Context, q *netstack.Request) {
		asked <- struct{}{}
		if q.Src.Port()%2 == 0 {
			q.Drop()
		}
	})
	for port := uint16(1000); port < 1002; port++ {
		from := netip.AddrPortFrom(guestAddr, port)
		for range 3 {
			require.Eventually(t, func() bool {
				r.Deliver(segment(from, netip.AddrPortFrom(worldAddr, 80), syn, 1, 0))
				select {
				case <-asked:
					return true
				default:
					return false
				}
			}, patience, time.Millisecond)
		}
	}
}

func TestRepeatedSYNsAreOneRequest(t *testing.T) {
	r := newRaw(t)
	var requests atomic.Int32
	answer := make(chan struct{})
	r.HandleTCP(func(_ context.Context, q *netstack.Request) {
		requests.Add(1)
		<-answer
		q.Refuse()
	})
	for range 100 {
		r.Deliver(segment(netip.AddrPortFrom(guestAddr, 1000), netip.AddrPortFrom(worldAddr, 80), syn, 1, 0))
	}
	close(answer)
	await(t, during(r.Close), "Close")
	require.EqualValues(t, 1, requests.Load())
}

// FAILURES 19: nobody answers what the guest asks for first, and many times over.
func TestBlackholesDoNotKeepOutAGoodRequest(t *testing.T) {
	p := newPair(t, 1500)
	var started, ended atomic.Int32
	p.router.HandleTCP(func(ctx context.Context, r *netstack.Request) {
		if r.Dst.Addr() == worldAddr {
			if c, err := r.Accept(); err == nil {
				_ = c.Close()
			}
			return
		}
		started.Add(1)
		<-ctx.Done()
		ended.Add(1)
	})
	const dials = 600 // more than one source may have under way
	blackhole := netip.MustParseAddr("203.0.113.9")
	for i := range dials {
		p.router.Deliver(segment(netip.AddrPortFrom(guestAddr, uint16(10000+i)), netip.AddrPortFrom(blackhole, 80), syn, 1, 0))
	}
	require.Eventually(t, func() bool { return started.Load() == dials }, patience, time.Millisecond)
	require.Eventually(t, func() bool { return ended.Load() >= dials-512 }, patience, time.Millisecond, "the oldest are given up")
	require.LessOrEqual(t, ended.Load(), int32(dials-512), "no more than need be")

	c, err := p.guest.DialTCP(withTimeout(t), netip.AddrPort{}, netip.AddrPortFrom(worldAddr, 80))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	p.router.Close()
	require.Equal(t, started.Load(), ended.Load(), "Close waits for the handlers")
}

// FAILURES 20: handshakes that the peer begins and never completes.
func TestHalfOpenFloodDoesNotKeepOutAGoodRequest(t *testing.T) {
	p := newPair(t, 1500)
	var accepting, failed atomic.Int32
	p.router.HandleTCP(func(_ context.Context, r *netstack.Request) {
		accepting.Add(1)
		c, err := r.Accept()
		if err != nil {
			failed.Add(1)
			return
		}
		_, _ = c.Write([]byte("welcome"))
		_ = c.Close()
	})
	// From an address that does not answer: a real stack would send RST.
	nobody := netip.MustParseAddr("192.168.127.77")
	for i := range 1000 {
		p.router.Deliver(segment(netip.AddrPortFrom(nobody, uint16(10000+i)), netip.AddrPortFrom(worldAddr, 80), syn, 1, 0))
	}
	c, err := p.guest.DialTCP(withTimeout(t), netip.AddrPort{}, netip.AddrPortFrom(worldAddr, 80))
	require.NoError(t, err)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "welcome", string(got))
	require.NoError(t, c.Close())

	require.Eventually(t, func() bool { return failed.Load() >= 1000-512 }, patience, time.Millisecond)
	await(t, during(p.router.Close), "Close with handshakes under way")
	require.Equal(t, accepting.Load()-1, failed.Load(), "every handshake is over")
}

// Whatever addresses they give themselves; and who asks for little has it.
func TestRequestsOfManyPeersAreBoundedTogether(t *testing.T) {
	r := newRaw(t)
	var running, most atomic.Int32
	modest := make(chan struct{})
	r.HandleTCP(func(ctx context.Context, q *netstack.Request) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-ctx.Done()
		if q.Peer == 255 {
			close(modest)
		}
	})
	ask := func(peer byte, i int) {
		src := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), peer})
		f := segment(netip.AddrPortFrom(src, 1000), netip.AddrPortFrom(worldAddr, 80), syn, 1, 0)
		f[11] = peer
		r.Deliver(f)
	}
	ask(255, 0)
	for i := range 10000 {
		ask(byte(i%8), i)
	}
	require.Eventually(t, func() bool { return running.Load() == 2048 }, patience, time.Millisecond)
	require.LessOrEqual(t, most.Load(), int32(2*2048))
	select {
	case <-modest:
		require.Fail(t, "the only request of a peer was crowded out")
	default:
	}
	await(t, during(r.Close), "Close")
	await(t, modest, "the end of that, too")
	require.Zero(t, running.Load())
}

func TestCloseEndsTheAcceptWhosePeerIsSilent(t *testing.T) {
	for range 50 { // Close at every moment of the handshake
		r := newRaw(t)
		result := make(chan error, 1)
		r.HandleTCP(func(_ context.Context, q *netstack.Request) {
			_, err := q.Accept()
			result <- err
		})
		r.Deliver(segment(netip.AddrPortFrom(guestAddr, 1000), netip.AddrPortFrom(worldAddr, 80), syn, 1, 0))
		await(t, during(r.Close), "Close")
		select {
		case err := <-result:
			require.ErrorIs(t, err, netstack.ErrClosed)
			require.ErrorIs(t, err, net.ErrClosed)
		default: // it came too late to be a request
		}
	}
}

func TestAcceptAfterCrowdingOutFails(t *testing.T) {
	r := newRaw(t)
	first := make(chan error, 1)
	r.HandleTCP(func(ctx context.Context, q *netstack.Request) {
		<-ctx.Done()
		if q.Src.Port() == 9999 {
			_, err := q.Accept()
			first <- err
		}
	})
	r.Deliver(segment(netip.AddrPortFrom(guestAddr, 9999), netip.AddrPortFrom(worldAddr, 80), syn, 1, 0))
	for i := range 512 {
		r.Deliver(segment(netip.AddrPortFrom(guestAddr, uint16(10000+i)), netip.AddrPortFrom(worldAddr, 80), syn, 1, 0))
	}
	select {
	case err := <-first:
		require.Error(t, err)
	case <-time.After(patience):
		t.Fatal("the oldest request was not given up")
	}
}

// One frame with SYN and RST used to end the process.
func TestNoCombinationOfFlagsIsMoreThanARequest(t *testing.T) {
	r := newRaw(t)
	ln, err := r.ListenTCP(netip.AddrPortFrom(routerAddr, 80))
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	asked := make(chan uint16, 256)
	r.HandleTCP(func(_ context.Context, q *netstack.Request) {
		asked <- q.Src.Port()
		q.Refuse()
	})
	want := make(map[uint16]bool)
	for flags := range uint16(256) {
		for _, to := range []netip.Addr{worldAddr, routerAddr} {
			r.Deliver(segment(netip.AddrPortFrom(guestAddr, 1000+flags), netip.AddrPortFrom(to, 80), byte(flags), 1, 5))
		}
		if flags&(syn|ack|rst|fin) == syn { // PSH, URG, ECE and CWR do not matter
			want[1000+flags] = true
		}
	}
	await(t, during(r.Close), "Close") // and of every handler
	close(asked)
	got := make(map[uint16]bool)
	for port := range asked {
		got[port] = true
	}
	require.Equal(t, want, got)
}

func TestWhatIsNoRequestIsReset(t *testing.T) {
	r := newRaw(t)
	r.HandleTCP(func(_ context.Context, q *netstack.Request) { t.Errorf("request of %s", q.Src) })
	for _, flags := range []byte{ack, syn | ack, fin | ack} {
		r.Deliver(segment(netip.AddrPortFrom(guestAddr, 1000), netip.AddrPortFrom(worldAddr, 80), flags, 1, 5))
		require.NotZero(t, r.next(t, packet.ProtoTCP).Payload[13]&rst)
	}
	damaged := segment(netip.AddrPortFrom(guestAddr, 1000), netip.AddrPortFrom(worldAddr, 80), syn, 1, 0)
	damaged[len(damaged)-1] ^= 1
	r.Deliver(damaged)
	await(t, during(r.Close), "Close")
}
