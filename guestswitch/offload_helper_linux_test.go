// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Here the offload format is written by hand, from PROTOCOL: what the codec of the
// module does wrong at both ends alike is seen.

const (
	offer  = 1
	accept = 2
	commit = 3
)

// message is a frame of the negotiation.
func message(dst, src packet.MAC, kind byte, nonce []byte) []byte {
	b := slices.Concat(dst[:], src[:], []byte{0x88, 0xb5}, []byte("gnof"), []byte{1, kind, 0, 0, 1, 0, 0, 0}, nonce)
	return append(b, make([]byte, 60-len(b))...)
}

// A record is a frame in offload format.
type record struct {
	header [10]byte
	frame  []byte
}

func (r record) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(10+len(r.frame)))
	return slices.Concat(b, r.header[:], r.frame)
}

func (r record) gsoType() byte { return r.header[1] }

// readPlain and readRecord read one frame each.
func readPlain(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	f := make([]byte, binary.LittleEndian.Uint16(n[:]))
	_, err := io.ReadFull(r, f)
	return f, err
}

func readRecord(r io.Reader) (rec record, err error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return rec, err
	}
	if _, err := io.ReadFull(r, rec.header[:]); err != nil {
		return rec, err
	}
	rec.frame = make([]byte, binary.LittleEndian.Uint32(n[:])-10)
	_, err = io.ReadFull(r, rec.frame)
	return rec, err
}

func isMessage(f []byte, kind byte) bool {
	return len(f) == 60 && bytes.Equal(f[12:18], []byte{0x88, 0xb5, 'g', 'n', 'o', 'f'}) && f[19] == kind
}

// offloadHost is a host that knows the offload format. It takes the offer, and all
// the frames in either format.
type offloadHost struct {
	t       *testing.T
	conn    net.Conn
	in      *bufio.Reader
	nonce   []byte
	plain   chan []byte // frames before the commitment
	records chan record // and after it
}

// meet reads the offer, which has to be what comes first.
func meet(t *testing.T, conn net.Conn) *offloadHost {
	t.Helper()
	h := &offloadHost{
		t: t, conn: conn, in: bufio.NewReaderSize(conn, 1<<18),
		plain: make(chan []byte, 16384), records: make(chan record, 16384),
	}
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	f, err := readPlain(h.in)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Time{}))
	require.Len(t, f, 60)
	h.nonce = f[26:42]
	require.Equal(t, message(gatewayMAC, packet.MAC(f[6:12]), offer, h.nonce), f)
	return h
}

// serve keeps what the guest sends.
func (h *offloadHost) serve() *offloadHost {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			f, err := readPlain(h.in)
			if err != nil {
				return
			}
			h.plain <- f
			if isMessage(f, commit) {
				break
			}
		}
		for {
			r, err := readRecord(h.in)
			if err != nil {
				return
			}
			h.records <- r
		}
	}()
	h.t.Cleanup(func() { _ = h.conn.Close(); <-done })
	return h
}

func (h *offloadHost) write(b ...[]byte) {
	h.t.Helper()
	_, err := h.conn.Write(slices.Concat(b...))
	require.NoError(h.t, err)
}

func (h *offloadHost) accept() []byte { return encode(message(guestMAC, gatewayMAC, accept, h.nonce)) }

// waitPlain and waitRecord return the next frame for which ok holds.
func (h *offloadHost) waitPlain(ok func(f []byte) bool) []byte {
	h.t.Helper()
	return next(h.t, h.plain, ok)
}

func (h *offloadHost) waitRecord(ok func(r record) bool) record {
	h.t.Helper()
	return next(h.t, h.records, ok)
}

func next[T any](t *testing.T, from <-chan T, ok func(T) bool) T {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case v := <-from:
			if ok(v) {
				return v
			}
		case <-timeout:
			require.FailNow(t, "no such frame")
		}
	}
}

// answersPlain and answers wait until the kernel behind the tap answers.
func (h *offloadHost) answersPlain() {
	h.t.Helper()
	h.write(encode(arpRequest()))
	h.waitPlain(isARPReply)
}

func (h *offloadHost) answers() {
	h.t.Helper()
	h.write(record{frame: arpRequest()}.encode())
	h.waitRecord(func(r record) bool { return isARPReply(r.frame) })
}

func isARPReply(f []byte) bool {
	eth, _ := packet.ParseEthernet(f)
	a, ok := packet.ParseARP(eth.Payload)
	return ok && eth.Type == packet.EtherARP && a.Op == 2 && a.SenderMAC == guestMAC
}

// startOffload runs g until both directions are in offload format.
func startOffload(t *testing.T, g *guestswitch.Guest) (*run, *offloadHost) {
	t.Helper()
	if g.DHCP == nil {
		g.DHCP = static()
	}
	r, conn := start(t, g)
	h := meet(t, conn).serve()
	h.write(h.accept())
	h.waitPlain(func(f []byte) bool { return isMessage(f, commit) })
	r.wait(guestswitch.Configured)
	h.answers()
	return r, h
}

// pair is two guests whose hosts are one that passes records on.
type pair struct {
	runs  [2]*run
	ns    [2]*namespace // where the ends of TCP connections are
	addrs [2]netip.Addr
	large [2]int // records from each that stand for several frames
	wait  func() // for the relays, after the guests
}

// pass decides what becomes of the record from a guest: what is returned goes on.
type pass func(r record) []record

// newPair starts two guests in namespaces of their own. If plain, the host does not
// know the offload format.
func newPair(t *testing.T, plain bool, each func(i int) pass, trace func(out bool, f []byte)) *pair {
	t.Helper()
	p := &pair{}
	var hosts [2]*offloadHost
	for i := range p.runs {
		p.addrs[i] = netip.AddrFrom4([4]byte{192, 168, 127, byte(2 + i)})
		mac := net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, byte(0xee + i)}
		g := &guestswitch.Guest{
			Tap: guestswitch.Tap{MAC: mac}, Trace: trace,
			DHCP: guestswitch.StaticDHCP(guestswitch.Lease{Addr: netip.PrefixFrom(p.addrs[i], 24)}),
		}
		var conn net.Conn
		p.runs[i], conn = start(t, g)
		p.ns[i] = p.runs[i].ns
		hosts[i] = meet(t, conn)
		p.runs[i].wait(guestswitch.Configured)
	}
	if !plain { // both, before the first frame of either goes to the other
		for _, h := range hosts {
			h.write(h.accept())
		}
	}
	var relays sync.WaitGroup
	for i, h := range hosts {
		do := pass(func(r record) []record { return []record{r} })
		if each != nil {
			do = each(i)
		}
		relays.Go(func() { p.relay(h, hosts[1-i], i, plain, do) })
	}
	p.wait = func() {
		for _, h := range hosts {
			_ = h.conn.Close()
		}
		relays.Wait()
	}
	t.Cleanup(p.wait)
	return p
}

func (p *pair) relay(from, to *offloadHost, i int, plain bool, do pass) {
	out := bufio.NewWriterSize(to.conn, 1<<18)
	for committed := false; ; {
		var r record
		var err error
		if committed {
			r, err = readRecord(from.in)
		} else if r.frame, err = readPlain(from.in); isMessage(r.frame, commit) {
			committed = true
			continue
		}
		if err != nil {
			return
		}
		if r.gsoType() != 0 {
			p.large[i]++
		}
		for _, r := range do(r) {
			b := encode(r.frame)
			if !plain {
				b = r.encode()
			}
			if _, err := out.Write(b); err != nil {
				return
			}
		}
		if from.in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}
