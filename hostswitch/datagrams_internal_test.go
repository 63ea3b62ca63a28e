// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
	} {
		t.Run(name, func(t *testing.T) {
			var d datagrams
			d.add(make([]byte, 7))
			for _, n := range c.sizes {
				d.add(make([]byte, n))
			}
			require.Equal(t, c.want, d.row(1, 7))
		})
	}
}

// stuck is the end of a flow that never comes about.
type stuck struct{}

func (stuck) idle() time.Duration { return time.Hour }
func (stuck) dial(ctx context.Context) (flowConn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (stuck) reply([][]byte) {}
func (stuck) failed(error)   {}

// However many flows of a guest do not get on, what waits in them is bounded; and
// another guest is as free as before.
func TestWhatWaitsIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	table := newFlowTable(ctx, 10_000, 1000)
	send := func(guest byte, port, n int) (taken bool) {
		before := table.dropped.Load()
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, guest}), uint16(port))
		require.True(t, table.send(flowKey{src: src}, make([]byte, n), time.Now(), func() flowEnd { return stuck{} }))
		return table.dropped.Load() == before
	}
	for port := range 200 {
		require.True(t, send(1, port, flowIdleBytes), "little")
	}
	for port := range 200 {
		require.Equal(t, port < maxCrowded, send(1, port, 1), "flow %d: more", port)
	}
	require.True(t, send(2, 1, 65507))
	require.True(t, send(1, 0, flowBytes-flowIdleBytes-1))
	require.False(t, send(1, 0, 1), "full")
	for range flowQueue {
		require.True(t, send(3, 1, 0), "empty ones count too")
	}
	require.False(t, send(3, 1, 0))
	cancel()
	table.wait()
	require.Empty(t, table.crowded)
	require.False(t, table.send(flowKey{}, nil, time.Now(), func() flowEnd { return stuck{} }), "it has ended")
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
	require.True(t, sw.outboundUDP(src, dst, []byte("late")))
	require.Zero(t, sw.Snapshot().Flows)
	require.EqualValues(t, 1, sw.Snapshot().Drops["datagram"])
	require.True(t, sw.outboundUDP(src, netip.AddrPortFrom(dst.Addr(), 4002), []byte("elsewhere")))
	require.Equal(t, 1, sw.Snapshot().Flows)
	require.NoError(t, pc.Close())
	require.True(t, sw.outboundUDP(src, dst, []byte("out")))
	require.Equal(t, 2, sw.Snapshot().Flows)
}
