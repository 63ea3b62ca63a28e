// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

const (
	psh = 0x08
	urg = 0x20
)

// What the stack makes of frames that come through an Inlet is what it makes of
// the same frames one by one; and packets is what it has to handle for it, fewer
// where segments are alike.
func TestInlet(t *testing.T) {
	const n, window = 1000, 4000
	// at is the segment number i of n bytes, changed.
	at := func(i int, change ...func(*seg)) seg {
		s := seg{at: i * n, data: bytes.Repeat([]byte{byte('a' + i)}, n), window: window}
		for _, c := range change {
			c(&s)
		}
		return s
	}
	flags := func(f byte) func(*seg) { return func(s *seg) { s.flags |= f; s.window++ } }
	pushed := func(s *seg) { s.flags |= psh }
	short := func(s *seg) { s.data = s.data[:300] }
	empty := func(s *seg) { s.data = nil }
	partial := func(s *seg) { s.partial = true }
	acked := func(k int) func(*seg) { return func(s *seg) { s.ack = k } }
	opens := func(w uint16) func(*seg) { return func(s *seg) { s.window = w } }
	stamped := func(v uint32) func(*seg) { return func(s *seg) { s.stamp = v } }
	mac := func(s *seg) { s.toAnother = true }
	for name, tc := range map[string]struct {
		segs    []seg
		packets int
	}{
		"one run":                        {[]seg{at(0), at(1), at(2), at(3), at(4), at(5)}, 1},
		"one segment":                    {[]seg{at(0)}, 1},
		"PSH ends a run":                 {[]seg{at(0), at(1), at(2, pushed), at(3), at(4)}, 2},
		"PSH alone":                      {[]seg{at(0, pushed), at(1, pushed), at(2, pushed)}, 3},
		"a short one ends a run":         {[]seg{at(0), at(1), at(2, short), {at: 2300, data: make([]byte, n), window: window}}, 2},
		"a longer one begins a run":      {[]seg{at(0, short), {at: 300, data: make([]byte, n), window: window}}, 2},
		"retransmit":                     {[]seg{at(0), at(1), {at: n, data: make([]byte, n), window: window}, at(2)}, 2},
		"retransmit of the run":          {[]seg{at(0), at(1), {data: make([]byte, n), window: window}, {at: n, data: make([]byte, n), window: window}}, 2},
		"overlap":                        {[]seg{at(0), at(1), {at: n + 500, data: make([]byte, n), window: window}, at(2)}, 3},
		"gap":                            {[]seg{at(0), at(2), at(1)}, 3},
		"gap that is filled by runs":     {[]seg{at(0), at(1), at(4), at(5), at(2), at(3)}, 3},
		"backwards":                      {[]seg{at(3), at(2), at(1), at(0)}, 4},
		"duplicate ACKs":                 {[]seg{at(0, empty), at(0, empty), at(0, empty)}, 3},
		"ACK between data":               {[]seg{at(0), at(1, empty), at(1), at(2)}, 3},
		"ACK that goes on":               {[]seg{at(0), at(1, acked(500)), at(2, acked(500)), at(3, acked(1999))}, 3},
		"window update":                  {[]seg{at(0), at(1), at(2, empty, opens(9)), at(2, empty, opens(5000))}, 3},
		"window that changes":            {[]seg{at(0), at(1, opens(1)), at(2, opens(1)), at(3)}, 3},
		"window of nothing":              {[]seg{at(0), at(1, opens(0)), at(2)}, 3},
		"FIN":                            {[]seg{at(0), at(1), at(2, empty, flags(fin))}, 2},
		"FIN with data":                  {[]seg{at(0), at(1), at(2, flags(fin))}, 2},
		"data behind FIN":                {[]seg{at(0), at(1, flags(fin)), at(2), at(3)}, 3},
		"FIN amid data that is alike":    {[]seg{at(0), at(1, func(s *seg) { s.flags = fin }), at(2)}, 3},
		"URG amid data that is alike":    {[]seg{at(0), at(1, func(s *seg) { s.flags = urg }), at(2)}, 3},
		"RST amid data that is alike":    {[]seg{at(0), at(1, func(s *seg) { s.flags = rst }), at(2)}, 3},
		"SYN amid data that is alike":    {[]seg{at(0), at(1, func(s *seg) { s.flags = syn }), at(2)}, 3},
		"RST":                            {[]seg{at(0), at(1), at(2, empty, flags(rst))}, 2},
		"RST in the window":              {[]seg{at(0), at(1), at(5, empty, flags(rst)), at(2)}, 3},
		"SYN":                            {[]seg{at(0), at(1), at(2, empty, flags(syn)), at(2)}, 3},
		"URG":                            {[]seg{at(0), at(1, flags(urg), func(s *seg) { s.urgent = 5 }), at(2)}, 3},
		"ECE":                            {[]seg{at(0), at(1, flags(0x40)), at(2)}, 3},
		"no ACK":                         {[]seg{at(0), at(1, func(s *seg) { s.noACK = true; s.ack = 0 }), at(2)}, 3},
		"wrong TCP checksum":             {[]seg{at(0), at(1, func(s *seg) { s.wrongTCP = true }), at(2)}, 2},
		"wrong TCP checksum alone":       {[]seg{at(0, func(s *seg) { s.wrongTCP = true })}, 0},
		"wrong IP checksum":              {[]seg{at(0), at(1, func(s *seg) { s.wrongIP = true }), at(2)}, 2},
		"checksums left to the receiver": {[]seg{at(0, partial), at(1, partial), at(2), at(3, partial)}, 1},
		"super-frames":                   {[]seg{at(0), {at: n, super: true, data: make([]byte, 3*n), window: window}, at(4)}, 3},
		"fragments":                      {[]seg{at(0), at(1, func(s *seg) { s.inFragments = true }), at(2)}, 4},
		"fragments, wrong":               {[]seg{at(0), at(1, func(s *seg) { s.inFragments, s.wrongTCP = true, true }), at(2)}, 4},
		"options alike":                  {[]seg{at(0, stamped(7)), at(1, stamped(7)), at(2, stamped(7))}, 1},
		"options that differ":            {[]seg{at(0, func(s *seg) { s.options = []byte{1, 1, 1, 1} }), at(1), at(2, func(s *seg) { s.options = []byte{1, 1, 1, 0} })}, 3},
		"type of service":                {[]seg{at(0), at(1, func(s *seg) { s.tos = 3 }), at(2)}, 3},
		"time to live":                   {[]seg{at(0), at(1, func(s *seg) { s.ttl = 1 }), at(2)}, 3},
		"IP options":                     {[]seg{at(0, func(s *seg) { s.ihl = 6 }), at(1, func(s *seg) { s.ihl = 6 })}, 2},
		"padding":                        {[]seg{at(0), at(1, func(s *seg) { s.padding = 3 }), at(2)}, 3},
		"for another station":            {[]seg{at(0), at(1, mac), at(2)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			single, inlet := bothWays(t)
			for _, odd := range []bool{false, true} { // without and with timestamps
				var results []outcome
				for _, w := range []*way{single, inlet} {
					e := w.open(t, odd)
					before := w.packets()
					for _, s := range tc.segs {
						e.send(s)
					}
					w.flush()
					if seen := w.packets() - before; w == inlet {
						require.Equal(t, tc.packets, seen)
					}
					results = append(results, e.finish(t, 6*n))
				}
				require.Equal(t, results[0], results[1])
			}
		})
	}
}

// The clock of a sender goes on in the middle of its data.
func TestInletKeepsTimestampsApart(t *testing.T) {
	single, inlet := bothWays(t)
	var results []outcome
	for _, w := range []*way{single, inlet} {
		e := w.open(t, true)
		before := w.packets()
		for i := range 8 {
			e.send(seg{at: i * 100, data: bytes.Repeat([]byte{'x'}, 100), window: 4000, stamp: uint32(i / 3)})
		}
		w.flush()
		require.Equal(t, map[*way]int{single: 8, inlet: 3}[w], w.packets()-before)
		results = append(results, e.finish(t, 800))
	}
	require.Equal(t, results[0], results[1])
}

// A run is as long as an IPv4 packet, and the next begins where it ends.
func TestInletMergesUpToAPacket(t *testing.T) {
	_, w := bothWays(t)
	e := w.open(t, false)
	data := make([]byte, 200*1460)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	require.NoError(t, e.conn.SetDeadline(time.Now().Add(patience)))
	packets, got := 0, make([]byte, len(data))
	for at := 0; at < len(data); { // what the window has room for, at most
		before, first := w.packets(), at
		for ; at < len(data) && at-first < 45*1460; at += 1460 {
			e.send(seg{at: at, data: data[at : at+1460], window: 4000})
		}
		w.flush()
		packets += w.packets() - before
		_, err := io.ReadFull(e.conn, got[first:at])
		require.NoError(t, err)
	}
	// 44 to a run: 65,415 bytes and not one more.
	require.Equal(t, 4*2+1, packets)
	require.True(t, bytes.Equal(data, got))
	require.NoError(t, e.conn.Abort())
}

// No checksum can be left to the receiver where the header that says so is of a
// part: such a segment is verified as it is, and dropped.
func TestFragmentsWithoutAChecksum(t *testing.T) {
	_, w := bothWays(t)
	for _, odd := range []bool{false, true} {
		e := w.open(t, odd)
		e.send(seg{data: []byte("unverified"), window: 4000, partial: true, inFragments: true})
		require.Equal(t, strings.Repeat("\xff", 10), e.finish(t, 10).read)
	}
}

// What comes in meanwhile, from another sender, makes no difference.
func TestFragmentsOfManySendersAtOnce(t *testing.T) {
	r := newRaw(t)
	at := netip.AddrPortFrom(routerAddr, 9)
	pc, err := r.ListenUDP(at)
	require.NoError(t, err)
	defer func() { _ = pc.Close() }()
	var senders sync.WaitGroup
	for n := range byte(4) {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 127, 10 + n}), 9)
		f := packet.AppendUDP(nil, packet.Link{Src: guestMAC, Dst: routerMAC}, from, at, make([]byte, 64))
		f[len(f)-1] = 1 // and the checksum is wrong
		parts := fragments(f)
		senders.Go(func() {
			for range 5000 {
				r.Deliver(parts[0])
				r.Deliver(parts[1])
			}
		})
	}
	senders.Wait()
	r.Deliver(packet.AppendUDP(nil, packet.Link{Src: guestMAC, Dst: routerMAC}, netip.AddrPortFrom(guestAddr, 9), at, []byte("right")))
	require.NoError(t, pc.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 100)
	n, _, err := pc.ReadFrom(b)
	require.NoError(t, err)
	require.Equal(t, "right", string(b[:n]), "the first to be delivered")
}

// Each connection has its run, as many as there is room for; with more, what comes
// is the same, in more packets.
func TestInletOfManyConnections(t *testing.T) {
	for _, conns := range []int{1, 2, 8, 9, 20} {
		t.Run(fmt.Sprint(conns), func(t *testing.T) {
			single, inlet := bothWays(t)
			results := map[*way][]outcome{}
			for _, w := range []*way{single, inlet} {
				var ends []*end
				for i := range conns {
					ends = append(ends, w.open(t, i%2 == 1))
				}
				before := w.packets()
				for i := range 10 {
					for c, e := range ends {
						e.send(seg{at: i * 50, data: bytes.Repeat([]byte{byte(i), byte(c)}, 25), window: 4000})
					}
				}
				w.flush()
				seen := w.packets() - before
				switch {
				case w == single:
					require.Equal(t, 10*conns, seen)
				case conns <= 8:
					require.Equal(t, conns, seen)
				default:
					require.LessOrEqual(t, seen, 10*conns)
				}
				for _, e := range ends {
					results[w] = append(results[w], e.finish(t, 500))
				}
			}
			require.Equal(t, results[single], results[inlet])
		})
	}
}

// What waits in an Inlet goes before whatever else comes: here a question that the
// stack answers at once.
func TestNothingOvertakesWhatAnInletHolds(t *testing.T) {
	for name, other := range map[string][]byte{
		"ARP":  packet.AppendARP(nil, packet.Link{Src: guestMAC, Dst: packet.Broadcast}, packet.ARP{Op: 1, SenderMAC: guestMAC, Sender: guestAddr, Target: routerAddr}),
		"echo": packet.AppendEcho(nil, packet.Link{Src: guestMAC, Dst: routerMAC}, guestAddr, routerAddr, packet.Echo{ID: 1}),
	} {
		t.Run(name, func(t *testing.T) {
			_, w := bothWays(t)
			e := w.open(t, false)
			before := w.packets()
			e.send(seg{data: []byte("first"), window: 4000})
			require.Equal(t, before, w.packets(), "kept back")
			h, _ := e.frame(seg{})
			w.deliver(h, other)
			require.Equal(t, before+map[string]int{"ARP": 1, "echo": 2}[name], w.packets(), "without a Flush")
			require.Equal(t, "first", e.finish(t, 5).read)
		})
	}
}
