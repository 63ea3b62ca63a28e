// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// An offloader is a guest whose stream the test reads and writes itself, in either
// format.
type offloader struct {
	*guest
	t    testing.TB
	conn net.Conn
	in   *frame.Reader
	out  *frame.Queue
	end  chan error // what Attach returned
}

var offer = frame.Message{Kind: frame.Offer, Features: frame.FeatureTCPv4, Nonce: [16]byte{1, 2, 3, 15: 16}}

func plugOffloader(t testing.TB, sw *hostswitch.Switch, n byte, p hostswitch.Port) *offloader {
	near, far := net.Pipe()
	o := &offloader{guest: &guest{mac: macOf(n), addr: guestAddr(n)}, t: t, conn: near, in: frame.NewReader(near), out: frame.NewQueue(8 << 20), end: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var wires sync.WaitGroup
	wires.Go(func() { o.end <- sw.Attach(ctx, far, p) })
	wires.Go(func() { _ = o.out.Drain(near) })
	t.Cleanup(func() { cancel(); o.out.Close(); _ = near.Close(); wires.Wait() })
	return o
}

// agree makes the guest's stream one in offload format.
func (o *offloader) agree() *offloader {
	o.t.Helper()
	o.out.Put(o.message(offer))
	o.accepted()
	commit := offer
	commit.Kind = frame.Commit
	o.out.Upgrade(o.message(commit))
	return o
}

// accepted reads ACCEPT, after which frames are in offload format.
func (o *offloader) accepted() {
	o.t.Helper()
	f := o.next(func(e packet.Ethernet) bool { return e.Type == packet.EtherOffload })
	m, ok := frame.ParseMessage(f)
	require.True(o.t, ok)
	require.Equal(o.t, frame.Message{Kind: frame.Accept, Features: frame.FeatureTCPv4, Nonce: offer.Nonce}, m)
	e, _ := packet.ParseEthernet(f)
	require.Equal(o.t, o.mac, e.Dst)
	require.Equal(o.t, gatewayMAC, e.Src)
	o.in.Upgrade()
}

func (o *offloader) message(m frame.Message) []byte { return m.Frame(gatewayMAC, o.mac) }

// next returns the next frame that matches.
func (o *offloader) next(match func(packet.Ethernet) bool) []byte {
	o.t.Helper()
	require.NoError(o.t, o.conn.SetReadDeadline(time.Now().Add(patience)))
	for {
		f, err := o.in.Next()
		require.NoError(o.t, err)
		if e, ok := packet.ParseEthernet(f); ok && match(e) {
			return f
		}
	}
}

// answers shows that the stream is in step, both ways: the gateway answers.
func (o *offloader) answers() {
	o.t.Helper()
	o.out.Put(o.whoHas(gateway))
	o.next(func(e packet.Ethernet) bool { return isARP(e) && e.Dst == o.mac }) // and not what another guest asks
}

func TestOffloadIsAgreedOn(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	o := plugOffloader(t, sw, 2, hostswitch.Port{})
	o.out.Put(o.message(offer))
	o.accepted()
	o.answers() // in plain format until COMMIT, the answer no longer
	wrong, commit := offer, offer
	wrong.Kind, commit.Kind = frame.Commit, frame.Commit
	wrong.Nonce[0]++
	o.out.Put(o.message(wrong))
	o.answers()
	o.out.Upgrade(o.message(commit))
	o.answers()
	require.EqualValues(t, 1, sw.Snapshot().Drops["reserved"])
}

// Old guests, and what is no offer in time, stay with the plain format; nothing of
// it goes further than the host.
func TestMessagesThatChangeNothing(t *testing.T) {
	commit, accept, old := offer, offer, offer
	commit.Kind, accept.Kind, old.Features = frame.Commit, frame.Accept, 0
	version := func(o *offloader) []byte {
		f := o.message(offer)
		f[packet.EthernetLen+4]++
		return f
	}
	for name, c := range map[string]struct {
		port   hostswitch.Port
		frames func(o *offloader) [][]byte
	}{
		"an offer that is late":    {frames: func(o *offloader) [][]byte { return [][]byte{o.whoHas(o.addr), o.message(offer)} }},
		"COMMIT without an offer":  {frames: func(o *offloader) [][]byte { return [][]byte{o.message(commit)} }},
		"ACCEPT of a guest":        {frames: func(o *offloader) [][]byte { return [][]byte{o.message(accept)} }},
		"no feature that we know":  {frames: func(o *offloader) [][]byte { return [][]byte{o.message(old)} }},
		"another version":          {frames: func(o *offloader) [][]byte { return [][]byte{version(o)} }},
		"an offer cut short":       {frames: func(o *offloader) [][]byte { return [][]byte{o.message(offer)[:59]} }},
		"the host wants it plain":  {port: hostswitch.Port{Framing: hostswitch.FramingPlain}, frames: func(o *offloader) [][]byte { return [][]byte{o.message(offer)} }},
		"an offer after a bad one": {frames: func(o *offloader) [][]byte { return [][]byte{version(o), o.message(offer)} }},
	} {
		t.Run(name, func(t *testing.T) {
			sw := newSwitch(t, hostswitch.Config{})
			other := attachRaw(t, sw, 3)
			seen := other.watch(isAny)
			o := plugOffloader(t, sw, 2, c.port)
			for _, f := range c.frames(o) {
				o.out.Put(f)
			}
			o.answers()
			o.out.Put(o.marker("end"))
			for e := (packet.Ethernet{}); e.Type != markerType; {
				e, _ = packet.ParseEthernet(await(t, seen, "the marker"))
				require.NotEqual(t, uint16(packet.EtherOffload), e.Type)
			}
			require.NotZero(t, sw.Snapshot().Drops["reserved"])
		})
	}
}

func TestSecondOfferChangesNothing(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	o := plugOffloader(t, sw, 2, hostswitch.Port{})
	o.out.Put(o.message(offer))
	o.accepted()
	o.out.Put(o.message(offer))
	o.answers()
	commit := offer
	commit.Kind = frame.Commit
	o.out.Upgrade(o.message(commit))
	o.out.Put(o.message(offer))
	o.out.Put(o.message(commit))
	o.answers()
	require.EqualValues(t, 3, sw.Snapshot().Drops["reserved"])
}

// A guest that knows another's nonce (it does not) could do nothing with it: what
// it sends of this EtherType goes nowhere, to whomever, in either format.
func TestNobodyPutsAnotherOutOfStep(t *testing.T) {
	for name, hostile := range map[string]func(*testing.T, *hostswitch.Switch) *offloader{
		"plain": func(t *testing.T, sw *hostswitch.Switch) *offloader {
			return plugOffloader(t, sw, 3, hostswitch.Port{})
		},
		"offload": func(t *testing.T, sw *hostswitch.Switch) *offloader {
			return plugOffloader(t, sw, 3, hostswitch.Port{}).agree()
		},
	} {
		t.Run(name, func(t *testing.T) {
			sw := newSwitch(t, hostswitch.Config{})
			o, h := plugOffloader(t, sw, 2, hostswitch.Port{}), hostile(t, sw)
			h.answers()
			o.out.Put(o.message(offer))
			o.accepted()
			for _, kind := range []frame.Kind{frame.Offer, frame.Accept, frame.Commit} {
				for _, dst := range []packet.MAC{o.mac, packet.Broadcast, gatewayMAC} {
					for _, src := range []packet.MAC{h.mac, o.mac, gatewayMAC} {
						m := offer
						m.Kind = kind
						h.out.Put(m.Frame(dst, src))
					}
				}
			}
			h.out.Put(h.marker("end"))
			o.next(func(e packet.Ethernet) bool {
				require.NotEqual(t, uint16(packet.EtherOffload), e.Type)
				return isMarker(e)
			})
			o.answers()
			commit := offer
			commit.Kind = frame.Commit
			o.out.Upgrade(o.message(commit))
			o.answers()
			h.answers()
		})
	}
}

// superFrame is a TCP segment of n bytes that is many.
func superFrame(link packet.Link, src, dst netip.AddrPort, n int) (frame.Header, []byte) {
	segment := make([]byte, 20+n)
	binary.BigEndian.PutUint16(segment, src.Port())
	binary.BigEndian.PutUint16(segment[2:], dst.Port())
	segment[12], segment[13] = 5<<4, 0x10
	for i := range n {
		segment[20+i] = byte(i * 7)
	}
	f := ipv4Frame(link, src.Addr(), dst.Addr(), packet.ProtoTCP, 0, segment)
	a, b := src.Addr().As4(), dst.Addr().As4()
	sum := packet.Sum(uint32(packet.ProtoTCP)+uint32(len(segment)), append(a[:], b[:]...))
	binary.BigEndian.PutUint16(f[34+16:], sum)
	return frame.Header{Flags: frame.NeedsChecksum, GSOType: frame.GSOTCPv4, HdrLen: 54, GSOSize: 1460, CsumStart: 34, CsumOffset: 16}, f
}

// Between guests a frame stays as it is where both know the format, and becomes
// what it stands for where one does not, or a capture looks on.
func TestSuperFramesBetweenGuests(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	from := plugOffloader(t, sw, 2, hostswitch.Port{}).agree()
	old := plugOffloader(t, sw, 3, hostswitch.Port{})
	same := plugOffloader(t, sw, 4, hostswitch.Port{}).agree()
	for _, o := range []*offloader{from, old, same} {
		o.answers()
	}
	tcp := isProto(packet.ProtoTCP)
	film := new(film)
	ctx, cut := context.WithCancel(t.Context())
	shot := during(func() { _ = sw.Capture(ctx, film) })
	defer func() { cut(); <-shot }()
	eventually(t, func() bool { from.answers(); return len(film.frames()) > 0 }, "the capture")
	segmentsOnFilm := func() (segments [][]byte) {
		for _, f := range film.frames() {
			if e, ok := packet.ParseEthernet(f); ok && tcp(e) {
				segments = append(segments, f)
			}
		}
		return segments
	}
	const n = 10_000
	h, f := superFrame(packet.Link{Src: from.mac, Dst: same.mac}, netip.AddrPortFrom(from.addr, 1), netip.AddrPortFrom(same.addr, 2), n)
	from.out.PutOffload(h, f)
	require.True(t, bytes.Equal(f, same.next(tcp)))
	require.Equal(t, h, same.in.Header())
	whole := f[54:]

	h, f = superFrame(packet.Link{Src: from.mac, Dst: old.mac}, netip.AddrPortFrom(from.addr, 1), netip.AddrPortFrom(old.addr, 2), n)
	from.out.PutOffload(h, f)
	var got []byte
	for len(got) < n {
		f := old.next(tcp)
		require.LessOrEqual(t, len(f), 1514)
		require.True(t, packet.Intact(f))
		got = append(got, f[54:]...)
	}
	require.True(t, bytes.Equal(whole, got))

	segments := (n + 1459) / 1460
	eventually(t, func() bool { return len(segmentsOnFilm()) == 2*segments }, "all segments")
	for _, f := range segmentsOnFilm() {
		require.LessOrEqual(t, len(f), 1514)
		require.True(t, packet.Intact(f))
	}
}

// What does not fit its frame is dropped and counted, and harms nothing.
func TestHostileOffloadHeaders(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	o := plugOffloader(t, sw, 2, hostswitch.Port{}).agree()
	o.answers() // all of the queue has been sent, and the test writes itself now
	good, f := superFrame(packet.Link{Src: o.mac, Dst: gatewayMAC}, netip.AddrPortFrom(o.addr, 1), netip.AddrPortFrom(hostAlias, 2), 5000)
	for name, spoil := range map[string]func(*frame.Header){
		"TCPv6":                   func(h *frame.Header) { h.GSOType = 4 },
		"UDP":                     func(h *frame.Header) { h.GSOType = 3 },
		"with ECN":                func(h *frame.Header) { h.GSOType |= 0x80 },
		"gso_size 0":              func(h *frame.Header) { h.GSOSize = 0 },
		"gso_size 47":             func(h *frame.Header) { h.GSOSize = 47 },
		"csum_start beyond":       func(h *frame.Header) { h.GSOType, h.CsumStart = 0, 5054 },
		"csum_offset beyond":      func(h *frame.Header) { h.GSOType, h.CsumOffset = 0, 65535 },
		"checksum in the link":    func(h *frame.Header) { h.GSOType, h.CsumStart = 0, 0 },
		"no checksum to complete": func(h *frame.Header) { h.Flags = 0 },
	} {
		before := sw.Snapshot().Drops["offload"]
		h := good
		spoil(&h)
		wire := make([]byte, 14, 14+len(f))
		binary.LittleEndian.PutUint32(wire, uint32(10+len(f)))
		h.Put(wire[4:])
		if h.GSOType == 0 { // of a length that the network allows
			wire = append(wire, f[:1000]...)
			binary.LittleEndian.PutUint32(wire, 10+1000)
		} else {
			wire = append(wire, f...)
		}
		_, err := o.conn.Write(wire)
		require.NoError(t, err, name)
		o.answers()
		require.Equal(t, before+1, sw.Snapshot().Drops["offload"]+sw.Snapshot().Drops["long"], name)
	}
}

// A length that no frame has ends the connection: there is no way back into step.
func TestOffloadLengthThatNoFrameHas(t *testing.T) {
	for _, n := range []uint32{0, 9, 65_560, 1 << 31, 1<<32 - 1} {
		o := plugOffloader(t, newSwitch(t, hostswitch.Config{}), 2, hostswitch.Port{}).agree()
		o.answers()
		_, err := o.conn.Write(binary.LittleEndian.AppendUint32(nil, n))
		require.NoError(t, err)
		require.ErrorIs(t, await(t, o.end, "Attach"), frame.ErrLength, "%d", n)
	}
}

// A stack at the end of an offloaded stream: what TCP makes of it.
func TestTCPOverOffload(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	o := plugOffloader(t, sw, 2, hostswitch.Port{}).agree()
	long := make(chan struct{})
	var once sync.Once
	st, err := netstack.New(netstack.Config{MTU: 1500, MAC: o.mac[:], Output: func(_ packet.MAC, h frame.Header, parts [][]byte) {
		if h.GSOType == frame.GSOTCPv4 {
			once.Do(func() { close(long) })
		}
		o.out.PutOffload(h, parts...)
	}})
	require.NoError(t, err)
	require.NoError(t, st.AddAddress(netip.PrefixFrom(o.addr, network.Bits())))
	require.NoError(t, st.SetRoutes(network, gateway))
	o.Stack = st
	super := false
	done := during(func() {
		for inlet := st.NewInlet(); ; inlet.Flush() {
			f, err := o.in.Next()
			if err != nil {
				return
			}
			super = super || o.in.Header().GSOType == frame.GSOTCPv4
			inlet.Deliver(o.in.Header(), f)
		}
	})
	sum := func(c net.Conn) {
		h := sha256.New()
		_, _ = io.Copy(h, c)
		_, _ = c.Write(h.Sum(nil))
	}
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(i * 13 >> 3)
	}
	want := sha256.Sum256(data)
	server := hostTCP(t, sum)
	o.serve(t, 80, sum)
	down, err := sw.DialContext(withTimeout(t), "tcp", netip.AddrPortFrom(o.addr, 80).String())
	require.NoError(t, err)
	for name, c := range map[string]net.Conn{"up": o.dial(t, server), "down": down} {
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		_, err := c.Write(data)
		require.NoError(t, err, name)
		require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite(), name)
		got, err := io.ReadAll(c)
		require.NoError(t, err, name)
		require.True(t, bytes.Equal(want[:], got), name)
	}
	await(t, long, "a super-frame of the guest's")
	st.Close()
	require.NoError(t, o.conn.Close())
	await(t, done, "the reader")
	require.True(t, super, "none of the host's")
}
