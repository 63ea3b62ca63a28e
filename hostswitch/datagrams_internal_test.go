// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

func TestRow(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int
		want  int
	}{
		"alone":              {[]int{5}, 1},
		"all":                {[]int{5, 5, 5}, 3},
		"a shorter one ends": {[]int{5, 5, 3, 3}, 3},
		"a longer one not":   {[]int{5, 5, 6}, 2},
		"an empty one not":   {[]int{5, 5, 0}, 2},
		"empty":              {[]int{0, 0, 5}, 2},
		"many":               {make([]int, 50), 10},
		"many, shorter":      {[]int{5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 3}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			var d datagrams
			d.add(make([]byte, 7))
			for _, n := range c.sizes {
				d.add(make([]byte, n))
			}
			require.Equal(t, c.want, d.row(1, 7, 10))
		})
	}
}

// stuck is the end of a flow that never comes about, of the guest on a port.
type stuck uint64

func (s stuck) account() account  { return account{guest: uint64(s)} }
func (stuck) idle() time.Duration { return time.Hour }
func (stuck) dial(ctx context.Context) (flowConn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (stuck) reply([][]byte) {}
func (stuck) failed(error)   {}

// However many flows do not get on, of however many guests, what waits in them is
// bounded; a guest has no more than half of that, and a flow of any still some room.
func TestWhatWaitsIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	table := newFlowTable(ctx, 10_000, 5000)
	send := func(guest byte, port, n int) (taken bool) {
		before := table.dropped.Load()
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, guest}), uint16(port))
		require.True(t, table.send(flowKey{src: src}, make([]byte, n), time.Now(), func() flowEnd { return stuck(guest) }))
		return table.dropped.Load() == before
	}
	fill := func(guest byte, flows int) (held int) {
		for port := range flows {
			for i := range 200 {
				if send(guest, port, 1400) {
					held += 1400
				} else {
					require.Greater(t, i, 4, "flow %d", port)
					break
				}
			}
		}
		return held
	}
	require.InDelta(t, muchRoom, fill(1, 1), 4096)
	require.InDelta(t, shareRoom, fill(2, 70), 1<<20, "of one guest")
	require.True(t, send(3, 1, 65507), "of another")
	require.Less(t, fill(4, 200)+fill(5, 200), tableRoom-shareRoom+400*littleRoom, "of all")
	for i := range 100 {
		require.Equal(t, i < 5, send(6, 1, 1400), "none is left, but what each has")
	}
	cancel()
	table.wait()
	require.Empty(t, table.held)
	require.Zero(t, table.heldAll)
	require.False(t, table.send(flowKey{}, nil, time.Now(), func() flowEnd { return stuck(0) }), "it has ended")
}

// Whatever addresses a guest gives itself, and however many guests and clients of forwards
// want more than there is, who has few flows keeps them.
func TestWhoHasFewFlowsKeepsThem(t *testing.T) {
	const limit, share = 100, 60
	ctx, cancel := context.WithCancel(t.Context())
	table := newFlowTable(ctx, limit, share)
	open := func(end flowEnd, n int) {
		for i := range n {
			src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), uint16(i))
			_, forward := end.(stuckForward)
			require.True(t, table.send(flowKey{forward: forward, src: src, dst: netip.AddrPortFrom(netip.Addr{}, uint16(end.account().guest))}, nil, time.Now(), func() flowEnd { return end }))
		}
	}
	of := func(end flowEnd) int { return table.recent.WeightOf(end.account()) }
	open(stuck(1), 10)
	open(stuck(2), 200)
	require.Equal(t, share, of(stuck(2)))
	open(stuckForward{}, 200)
	open(stuck(3), 20)
	require.Equal(t, 10, of(stuck(1)), "as many as it had")
	require.Equal(t, 20, of(stuck(3)), "as many as it wants")
	require.InDelta(t, 35, of(stuck(2)), 1)
	require.InDelta(t, 35, of(stuckForward{}), 1)
	require.Len(t, table.flows, limit)
	cancel()
	table.wait()
}

// stuckForward is one of a client of a forward.
type stuckForward struct{ stuck }

func (stuckForward) account() account { return account{to: netip.MustParseAddr("192.168.127.2")} }

// One guest that is behind with many flows, a little in each, has room for more.
func TestManyFlowsMayBeBehind(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	table := newFlowTable(ctx, maxFlows, maxGuestFlows)
	for port := range 250 {
		for range 32 {
			table.send(flowKey{src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10}), uint16(port))}, make([]byte, 1472), time.Now(), func() flowEnd { return stuck(0) })
		}
	}
	require.Zero(t, table.dropped.Load())
	for range flowQueue {
		table.send(flowKey{}, nil, time.Now(), func() flowEnd { return stuck(0) })
	}
	require.Zero(t, table.dropped.Load())
	table.send(flowKey{}, nil, time.Now(), nil)
	require.EqualValues(t, 1, table.dropped.Load(), "empty ones count too")
	cancel()
	table.wait()
}

// A datagram that the stack has found no socket for, and that is about to go out when
// ListenPacket gives it one, does not take those behind it along.
func TestListenPacketWhileADatagramGoesOut(t *testing.T) {
	sw, err := New(Config{})
	require.NoError(t, err)
	defer sw.Close() //nolint:errcheck // the end
	src, dst := netip.MustParseAddrPort("192.168.127.2:4000"), netip.MustParseAddrPort("192.168.127.254:4001")
	pc, err := sw.ListenPacket("udp", dst.String())
	require.NoError(t, err)
	require.True(t, sw.outboundUDP(0, src, dst, []byte("late")))
	require.Zero(t, sw.Snapshot().Flows)
	require.EqualValues(t, 1, sw.Snapshot().Drops["datagram"])
	require.True(t, sw.outboundUDP(0, src, netip.AddrPortFrom(dst.Addr(), 4002), []byte("elsewhere")))
	require.Equal(t, 1, sw.Snapshot().Flows)
	require.NoError(t, pc.Close())
	require.True(t, sw.outboundUDP(0, src, dst, []byte("out")))
	require.Equal(t, 2, sw.Snapshot().Flows)
}

// What goes out to an address, and what comes in by a forward of it, are two things,
// even between the same two.
func TestForwardsAndOutboundFlowsDoNotMix(t *testing.T) {
	sw, err := New(Config{})
	require.NoError(t, err)
	defer sw.Close() //nolint:errcheck // the end
	flows := func() int { return sw.Snapshot().Flows }
	in, err := sw.Expose(t.Context(), Forward{Protocol: "udp", Local: "127.0.0.1:0", Remote: ":80"})
	require.NoError(t, err)
	src, dst := netip.MustParseAddrPort("192.168.127.2:4000"), netip.MustParseAddrPort(in.Local)
	keys := []flowKey{{proto: packet.ProtoUDP, src: src, dst: dst}, {proto: packet.ProtoUDP, forward: true, src: src, dst: dst}}
	for _, k := range keys {
		sw.flows.send(k, nil, time.Now(), func() flowEnd { return stuck(0) })
	}
	require.Equal(t, 2, flows())
	tcp, err := sw.Expose(t.Context(), Forward{Local: "127.0.0.1:0", Remote: ":80"})
	require.NoError(t, err)
	sw.flows.send(flowKey{proto: packet.ProtoUDP, forward: true, src: src, dst: netip.MustParseAddrPort(tcp.Local)}, nil, time.Now(), func() flowEnd { return stuck(0) })
	require.NoError(t, sw.Unexpose(tcp.Protocol, tcp.Local))
	require.Equal(t, 3, flows(), "of a UDP forward with the number of a TCP one")
	require.NoError(t, sw.Unexpose(in.Protocol, in.Local))
	require.Equal(t, 2, flows())
	require.True(t, sw.flows.send(keys[0], nil, time.Now(), nil), "what goes out stays")
}
