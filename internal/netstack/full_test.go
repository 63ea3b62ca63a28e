// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A gate is what the router knows of its peers: whether they are full is for the test to
// open and shut.
type gate struct {
	narrow atomic.Bool // they are not wide

	asked chan packet.MAC // while it is shut

	mu   sync.Mutex
	shut chan struct{} // nil: open
}

func newGate() *gate { return &gate{asked: make(chan packet.MAC, 1000)} }

// peer is a Config.Peer.
func (g *gate) peer(mac packet.MAC) netstack.Peer { return gatePeer{g, mac} }

type gatePeer struct {
	gate *gate
	mac  packet.MAC
}

func (p gatePeer) ID() uint64            { return uint64(p.mac[5]) }
func (p gatePeer) Full() <-chan struct{} { return p.gate.full(p.mac) }
func (p gatePeer) Wide() bool            { return !p.gate.narrow.Load() }

func (g *gate) full(to packet.MAC) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		return nil
	}
	select {
	case g.asked <- to:
	default:
	}
	return g.shut
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = nil
}

// waits returns once somebody has asked for the guest, and is told to wait.
func (g *gate) waits(t testing.TB) {
	t.Helper()
	select {
	case mac := <-g.asked:
		require.Equal(t, guestMAC, mac)
	case <-time.After(patience):
		require.Fail(t, "Full was not asked")
	}
}

type wrote struct {
	n   int
	err error
}

func writing(c net.Conn, b []byte) <-chan wrote {
	done := make(chan wrote, 1)
	go func() {
		n, err := c.Write(b)
		done <- wrote{n, err}
	}()
	return done
}

func ended(t testing.TB, w <-chan wrote) wrote {
	t.Helper()
	select {
	case got := <-w:
		return got
	case <-time.After(patience):
		require.Fail(t, "Write still waits")
		return wrote{}
	}
}

// pass shows that what is sent over a connection arrives, and all that was sent before
// over any other.
func pass(t testing.TB, from, to net.Conn) {
	t.Helper()
	require.NoError(t, to.SetReadDeadline(time.Now().Add(patience)))
	_, err := from.Write([]byte("small"))
	require.NoError(t, err)
	_, err = io.ReadFull(to, make([]byte, len("small")))
	require.NoError(t, err)
}

func TestWhoWritesMuchWaitsWhileTheGuestIsFull(t *testing.T) {
	p := newPair(t, 1500)
	g, r := p.connect(t)
	otherG, otherR := p.connect(t)
	p.gate.close()
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(i >> 8)
	}
	begun := time.Now()
	done := writing(r, data)
	p.gate.waits(t)
	pass(t, otherR, otherG) // a small write does not ask
	pass(t, g, r)           // the guest's own have another way to go
	asked := len(p.gate.asked)
	require.NoError(t, g.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	sent, err := g.Read(make([]byte, 1))
	if time.Since(begun) < netstack.RoomPatience { // else it may have gone on
		require.Zero(t, asked)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "nothing was sent")
	}

	require.NoError(t, g.SetReadDeadline(time.Now().Add(patience)))
	p.gate.open()
	got := make([]byte, len(data)-sent)
	_, err = io.ReadFull(g, got)
	require.NoError(t, err)
	require.Equal(t, data[sent:], got)
	require.Equal(t, wrote{len(data), nil}, ended(t, done))
}

// It may be full again by the time somebody who waited comes to it: others have waited
// too, and each goes on with no more than goes with one packet.
func TestWhoWaitedAsksAgain(t *testing.T) {
	p := newPair(t, 1500)
	g, r := p.connect(t)
	p.gate.close()
	close(p.gate.shut) // full, but by the time somebody waits there is room
	data := make([]byte, 3*p.router.WriteSize()+1)
	require.Equal(t, wrote{len(data), nil}, ended(t, writing(r, data)))
	require.Len(t, p.gate.asked, 4)
	require.NoError(t, g.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.ReadFull(g, data)
	require.NoError(t, err)
}

// Who fills the guest's queue may never stop, or the guest be elsewhere by now.
func TestAWriteGoesOnThoughFullNeverEnds(t *testing.T) {
	moved := packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xef}
	p := newPair(t, 1500)
	g, r := p.connect(t)
	data := make([]byte, 3*p.router.WriteSize()) // there is room for it without the guest
	require.Equal(t, wrote{len(data), nil}, ended(t, writing(r, data)))
	require.NoError(t, g.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.ReadFull(g, data)
	require.NoError(t, err)

	p.router.Deliver(packet.AppendARP(nil, packet.Link{Src: moved, Dst: packet.Broadcast},
		packet.ARP{Op: 1, SenderMAC: moved, Sender: guestAddr, Target: routerAddr}))
	p.gate.close()
	begun := time.Now()
	require.Equal(t, wrote{len(data), nil}, ended(t, writing(r, data)))
	require.GreaterOrEqual(t, time.Since(begun), netstack.RoomPatience)
	p.gate.waits(t) // where it was
	require.NotEmpty(t, p.gate.asked)
	require.Equal(t, moved, <-p.gate.asked)
}

func TestWhatLetsAWriteGoThatWaitsForTheGuest(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(t *testing.T, p *pair, guest, router *netstack.Conn)
		want error
	}{
		"Close": {func(t *testing.T, _ *pair, _, r *netstack.Conn) { require.NoError(t, r.Close()) }, net.ErrClosed},
		"Abort": {func(t *testing.T, _ *pair, _, r *netstack.Conn) { require.NoError(t, r.Abort()) }, net.ErrClosed},
		"a deadline that has passed": {func(t *testing.T, _ *pair, _, r *netstack.Conn) {
			require.NoError(t, r.SetWriteDeadline(time.Unix(1, 0)))
		}, os.ErrDeadlineExceeded},
		"a deadline that passes": {func(t *testing.T, _ *pair, _, r *netstack.Conn) {
			require.NoError(t, r.SetDeadline(time.Now().Add(20*time.Millisecond)))
		}, os.ErrDeadlineExceeded},
		"a reset of the guest's": {func(t *testing.T, _ *pair, g, _ *netstack.Conn) { require.NoError(t, g.Abort()) }, netstack.ErrReset},
		"the end of the stack":   {func(_ *testing.T, p *pair, _, _ *netstack.Conn) { p.router.Close() }, netstack.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 1500)
			g, r := p.connect(t)
			p.gate.close()
			begun := time.Now()
			done := writing(r, make([]byte, 32<<20)) // more than both ends have room for
			p.gate.waits(t)
			c.do(t, p, g, r)
			got := ended(t, done)
			if time.Since(begun) < netstack.RoomPatience { // else it may have gone on
				require.Zero(t, got.n)
			}
			require.ErrorIs(t, got.err, c.want)
			var op *net.OpError
			require.ErrorAs(t, got.err, &op)
			require.Equal(t, "write", op.Op)
		})
	}
}

// How much went is told also by a Write that came to wait on its way.
func TestAWriteThatComesToWaitTellsHowMuchWent(t *testing.T) {
	p := newPair(t, 1500)
	g, r := p.connect(t)
	const all = 32 << 20 // more than both ends have room for
	done := writing(r, make([]byte, all))
	require.NoError(t, g.SetReadDeadline(time.Now().Add(patience)))
	_, err := g.Read(make([]byte, 1))
	require.NoError(t, err)
	p.gate.close()
	got := 1
	for buf := make([]byte, 64<<10); len(p.gate.asked) == 0; {
		n, err := g.Read(buf)
		require.NoError(t, err)
		got += n
	}
	require.NoError(t, r.SetWriteDeadline(time.Unix(1, 0)))
	w := ended(t, done)
	require.ErrorIs(t, w.err, os.ErrDeadlineExceeded)
	require.Less(t, w.n, all)
	require.NoError(t, r.CloseWrite())
	rest, err := io.Copy(io.Discard, g)
	require.NoError(t, err)
	require.Equal(t, w.n, got+int(rest))
}
