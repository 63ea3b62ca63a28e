// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

func TestGuestsReachEachOther(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	a, b := attach(t, sw, 2), attach(t, sw, 3)
	raw := attachRaw(t, sw, 4)
	b.serve(t, 80, echo)

	require.Equal(t, "over the switch", exchange(t, a.dial(t, netip.AddrPortFrom(b.addr, 80)), "over the switch"))

	require.Equal(t, b.mac, raw.resolve(t, b.addr), "broadcast reaches every guest")
	pong := raw.watch(isProto(packet.ProtoICMP))
	raw.send(packet.AppendEcho(nil, packet.Link{Src: raw.mac, Dst: b.mac}, raw.addr, b.addr, packet.Echo{ID: 3, Seq: 4}))
	ip := ipv4Of(t, await(t, pong, "the other guest's answer"))
	require.Equal(t, b.addr, ip.Src)
	e, ok := packet.ParseEcho(ip)
	require.True(t, ok)
	require.Equal(t, packet.Echo{Reply: true, ID: 3, Seq: 4, Data: []byte{}}, e)

	// What is for one guest is not for another.
	other := attachRaw(t, sw, 5)
	require.Equal(t, gatewayMAC, other.resolve(t, gateway))
	seen := other.watch(isAny)
	raw.send(packet.AppendEcho(nil, packet.Link{Src: raw.mac, Dst: b.mac}, raw.addr, b.addr, packet.Echo{ID: 3, Seq: 5}))
	await(t, pong, "the answer")
	raw.send(raw.marker("end"))
	f, _ := packet.ParseEthernet(await(t, seen, "marker"))
	require.Equal(t, "end", string(f.Payload))
}

// A guest that comes back while its old connection still stands takes its
// address along.
func TestGuestComesBack(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	server := hostTCP(t, echo)
	old := attach(t, sw, 2)
	require.Equal(t, "old", exchange(t, old.dial(t, server), "old"))
	anew := attach(t, sw, 2)
	require.Equal(t, "new", exchange(t, anew.dial(t, server), "new"))
	require.Len(t, sw.Snapshot().Ports, 2)
	require.Len(t, sw.Snapshot().CAM, 1)

	anew.serve(t, 80, func(c net.Conn) { _, _ = io.WriteString(c, "the new one") })
	f, err := sw.Expose(t.Context(), hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	require.NoError(t, err)
	require.Equal(t, "the new one", hostExchange(t, f.Local, ""))

	require.NoError(t, old.conn.Close()) // without a last word of its stack
	require.NoError(t, await(t, old.attached, "Attach"))
	require.Len(t, sw.Snapshot().CAM, 1, "the old connection's end takes nothing of the new one's")
	require.Equal(t, "the new one", hostExchange(t, f.Local, ""))
}

// hostExchange is exchange with an address of the host.
func hostExchange(t testing.TB, address, request string) string {
	t.Helper()
	c, err := new(net.Dialer).DialContext(withTimeout(t), "tcp", address)
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // the end
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return exchange(t, c, request)
}

// FAILURES 29: a guest that stops reading fills its own queue, which is bounded,
// and nobody else's.
func TestGuestThatStopsReading(t *testing.T) {
	const bound = 8 << 20
	sw := newSwitch(t, hostswitch.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	stalled, done := start(ctx, sw)
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 1 }, "the first port")
	good := attach(t, sw, 2)
	sender := attachRaw(t, sw, 9)
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 3 }, "attached")
	first := func() hostswitch.PortSnapshot { return sw.Snapshot().Ports[0] }

	// It is told what everybody is told, until its queue is full.
	frames := sender.marker(string(make([]byte, 1400)))
	eventually(t, func() bool {
		for range 100 {
			sender.send(frames)
		}
		p := first()
		require.LessOrEqual(t, p.Queued, bound)
		return p.Drops["queueFull"] > 0
	}, "the queue of the one that does not read")
	require.Greater(t, first().Queued, bound/8, "what is for everybody gets a quarter")

	const size = 32 << 20
	server := hostTCP(t, func(c net.Conn) { _, _ = c.Write(make([]byte, size)) })
	n, err := io.Copy(io.Discard, good.dial(t, server))
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	require.LessOrEqual(t, first().Queued, bound)

	cancel() // FAILURES 15
	require.NoError(t, await(t, done, "Attach"))
	requireClosed(t, stalled)
}

// Two guests with one MAC look like a network that loses everything.
func TestGuestWithTheMACOfAnotherIsTold(t *testing.T) {
	events, on := tell()
	sw := newSwitch(t, hostswitch.Config{OnEvent: on})
	a, b := attachRaw(t, sw, 2), attachRaw(t, sw, 3)
	a.resolve(t, gateway)
	b.mac, b.addr = a.mac, a.addr
	for range 100 {
		b.send(b.whoHas(gateway))
	}
	next(t, events, hostswitch.Connected)
	next(t, events, hostswitch.Connected)
	e := next(t, events, hostswitch.Refused)
	require.Equal(t, "guest 3", e.Peer)
	require.ErrorContains(t, e.Err, a.mac.String()+` of guest "guest 2"`)
	require.Eventually(t, func() bool { return sw.Snapshot().Ports[1].Drops["source"] == 100 }, patience, time.Millisecond)
	f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	require.Equal(t, f, *next(t, events, hostswitch.Exposed).Forward, "told of once")
}

// What a guest's last connection still has to say, when its next one is there, is no
// other guest's.
func TestGuestThatComesBackIsNoOther(t *testing.T) {
	events, on := tell()
	sw := newSwitch(t, hostswitch.Config{OnEvent: on})
	last := attachRaw(t, sw, 2)
	last.resolve(t, gateway)
	attachRaw(t, sw, 2).resolve(t, gateway)
	last.send(last.whoHas(gateway))
	require.Eventually(t, func() bool { return sw.Snapshot().Ports[0].Drops["source"] == 1 }, patience, time.Millisecond)
	next(t, events, hostswitch.Connected)
	next(t, events, hostswitch.Connected)
	f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	require.Equal(t, f, *next(t, events, hostswitch.Exposed).Forward, "nothing was refused")
}
