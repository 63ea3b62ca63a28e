// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A way is a stack whose connections the test is the far end of, and how frames get
// into it.
type way struct {
	*raw
	deliver func(h frame.Header, f []byte)
	flush   func()
	ln      *netstack.Listener
	port    uint16 // of the last connection

	mu   sync.Mutex
	ends map[uint16]*end
}

// bothWays returns a stack that frames are delivered to one by one, and one that
// has an Inlet.
func bothWays(t testing.TB) (single, inlet *way) {
	single, inlet = newWay(t), newWay(t)
	single.deliver = func(h frame.Header, f []byte) { h.Complete(f); single.Deliver(f) }
	single.flush = func() {}
	in := inlet.NewInlet()
	inlet.deliver, inlet.flush = in.Deliver, in.Flush
	return single, inlet
}

func newWay(t testing.TB) *way {
	w := &way{raw: newRaw(t), port: 9999, ends: map[uint16]*end{}}
	w.Probe(w.processed)
	ln, err := w.ListenTCP(netip.AddrPortFrom(routerAddr, 80))
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	w.ln = ln
	return w
}

// packets is how many IPv4 packets the stack has seen.
func (w *way) packets() int {
	return int(w.StatsTree()["IP"].(map[string]any)["PacketsReceived"].(uint64))
}

// A mark is what a connection has learned from its peer.
type mark struct{ acked, window int }

// processed notes what has changed.
func (w *way) processed(peer uint16, acked uint32, window int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.ends[peer]
	if e == nil {
		return
	}
	m := mark{int(acked - e.iss - 1), window}
	if len(e.marks) == 0 || e.marks[len(e.marks)-1] != m {
		e.marks = append(e.marks, m)
		if m.acked == written {
			close(e.done)
		}
	}
}

// An end is the far end of a connection.
type end struct {
	w        *way
	conn     *netstack.Conn
	src      netip.AddrPort
	isn, iss uint32
	stamps   bool
	marks    []mark
	done     chan struct{} // closed when all is acknowledged
}

// written is what the stack has sent, and waits to be acknowledged.
const written = 2000

// open connects. Sequence numbers wrap within the first KB of every other one.
func (w *way) open(t testing.TB, odd bool) *end {
	t.Helper()
	if w.port++; w.port == 0 {
		w.port = 10000
	}
	e := &end{w: w, src: netip.AddrPortFrom(guestAddr, w.port), isn: 0xffff_fe00, stamps: odd, done: make(chan struct{})}
	if odd {
		e.isn = 1000
	}
	for len(w.out) > 0 { // of other connections
		<-w.out
	}
	hello := seg{at: -1, flags: syn, noACK: true, window: 65535, options: []byte{3, 3, 0, 1}} // window scaling by nothing: the stack may scale its own
	w.Deliver(e.whole(hello))
	for {
		p := w.next(t, packet.ProtoTCP)
		if binary.BigEndian.Uint16(p.Payload[2:]) == w.port && p.Payload[13]&syn != 0 {
			e.iss = binary.BigEndian.Uint32(p.Payload[4:])
			break
		}
	}
	w.mu.Lock()
	w.ends[w.port] = e
	w.mu.Unlock()
	w.Deliver(e.whole(seg{window: 65535}))
	require.NoError(t, w.ln.SetDeadline(time.Now().Add(patience)))
	c, err := w.ln.Accept()
	require.NoError(t, err)
	e.conn = c.(*netstack.Conn)
	_, err = e.conn.Write(make([]byte, written))
	require.NoError(t, err)
	return e
}

// A seg is a TCP segment, and what is unusual about its frame.
type seg struct {
	at      int // where in the stream
	data    []byte
	flags   byte
	noACK   bool
	ack     int // how much of what the stack has written
	window  uint16
	stamp   uint32
	options []byte // multiples of four
	urgent  uint16

	tos, ttl, ihl     byte // 0: the usual
	padding           int
	partial           bool // the checksum is left to the receiver
	super             bool // and so is the cutting
	wrongIP, wrongTCP bool
	inFragments       bool
	toAnother         bool // station
}

// frame returns the segment as a guest hands it over.
func (e *end) frame(s seg) (h frame.Header, f []byte) {
	options := slices.Clone(s.options)
	if e.stamps {
		options = binary.BigEndian.AppendUint32(append(options, 1, 1, 8, 10), s.stamp)
		options = append(options, 0, 0, 0, 0)
	}
	tcp := binary.BigEndian.AppendUint16(nil, e.src.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, 80)
	tcp = binary.BigEndian.AppendUint32(tcp, e.isn+1+uint32(s.at))
	acked, flags := e.iss+1+uint32(s.ack), s.flags|ack
	if s.noACK {
		acked, flags = 0, s.flags
	}
	tcp = binary.BigEndian.AppendUint32(tcp, acked)
	tcp = append(tcp, byte(5+len(options)/4)<<4, flags)
	tcp = binary.BigEndian.AppendUint16(tcp, s.window)
	tcp = append(tcp, 0, 0)
	tcp = binary.BigEndian.AppendUint16(tcp, s.urgent)
	tcp = append(append(tcp, options...), s.data...)

	ihl := max(5, int(s.ihl))
	ip := slices.Concat([]byte{0x40 | byte(ihl), s.tos, 0, 0, 0, 0, 0, 0, 64 - s.ttl, packet.ProtoTCP, 0, 0},
		guestAddr.AsSlice(), routerAddr.AsSlice(), slices.Repeat([]byte{1}, ihl*4-20))
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(tcp)))
	binary.BigEndian.PutUint16(ip[10:], packet.Checksum(0, ip))
	pseudo := packet.Sum(packet.ProtoTCP+uint32(len(tcp)), ip[12:20])
	if s.partial || s.super {
		binary.BigEndian.PutUint16(tcp[16:], pseudo)
		h = frame.Header{Flags: frame.NeedsChecksum, CsumStart: uint16(14 + len(ip)), CsumOffset: 16}
		if s.super {
			h.GSOType, h.GSOSize, h.HdrLen = frame.GSOTCPv4, 1000, uint16(14+len(ip)+20+len(options))
		}
	} else {
		binary.BigEndian.PutUint16(tcp[16:], packet.Checksum(uint32(pseudo), tcp))
	}
	if s.wrongIP {
		ip[10] ^= 1
	}
	if s.wrongTCP {
		tcp[17] ^= 4
	}
	dst := routerMAC
	if s.toAnother {
		dst[5]++
	}
	f = slices.Concat(dst[:], guestMAC[:], []byte{0x08, 0}, ip, tcp, make([]byte, s.padding))
	return h, f
}

func (e *end) whole(s seg) []byte { _, f := e.frame(s); return f }

// send hands a segment over.
func (e *end) send(s seg) {
	h, f := e.frame(s)
	if !s.inFragments {
		e.w.deliver(h, f)
		return
	}
	for _, part := range fragments(f) {
		e.w.deliver(h, part)
	}
}

// fragments cuts the packet in a frame in two: after the TCP header if it can.
func fragments(f []byte) [][]byte {
	const head = packet.EthernetLen + packet.IPv4Len
	n := min(24, (len(f)-head-1)&^7)
	first, second := slices.Clone(f[:head+n]), slices.Concat(f[:head], f[head+n:])
	for i, part := range [][]byte{first, second} {
		ip := part[packet.EthernetLen:head]
		binary.BigEndian.PutUint16(ip[2:], uint16(len(part)-packet.EthernetLen))
		binary.BigEndian.PutUint16(ip[6:], []uint16{0x2000, uint16(n / 8)}[i])
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], packet.Checksum(0, ip))
	}
	return [][]byte{first, second}
}

// strayFINs is how many more than one the stack may have been sent.
const strayFINs = 64

// An outcome is all that a connection has made of what it was sent: what its
// reader got and how it ended, and what it learned of its peer in which order.
type outcome struct {
	read  string
	reset bool
	marks []mark
}

// finish fills what is missing of n bytes, says FIN and waits until all has been
// processed.
func (e *end) finish(t testing.TB, n int) (o outcome) {
	t.Helper()
	e.w.flush()
	filling := 64 + n/32 // little, so that what came before its turn is seen
	filler := slices.Repeat([]byte{0xff}, filling)
	for at := 0; at < n; at += filling {
		e.w.Deliver(e.whole(seg{at: at, data: filler[:min(filling, n-at)], window: 9000}))
	}
	e.w.Deliver(e.whole(seg{at: n, flags: fin, window: 9000})) // alone: gVisor does not see it behind data that it has
	require.NoError(t, e.conn.SetDeadline(time.Now().Add(patience)))
	b, err := io.ReadAll(e.conn)
	o.read = string(b)
	switch {
	case errors.Is(err, netstack.ErrReset):
		o.reset = true
	default:
		require.NoError(t, err)
		// It has taken a FIN behind what was read (gVisor takes one behind another too).
		// What is next in line is the only one that acknowledges everything.
		for fins := range 1 + strayFINs {
			e.w.Deliver(e.whole(seg{at: len(b) + 1 + fins, ack: written, window: 9000}))
		}
		select {
		case <-e.done:
		case <-e.conn.Broken().Done():
		case <-time.After(patience):
			t.Fatal("not all was processed")
		}
	}
	require.NoError(t, e.conn.Abort())
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	delete(e.w.ends, e.src.Port())
	o.marks = e.marks
	return o
}
