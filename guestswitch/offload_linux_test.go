// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Whoever else sends frames at the beginning, the offer comes first; meet checks it.
func TestTheOfferIsNewWithEachConnection(t *testing.T) {
	g := &guestswitch.Guest{} // with a client that asks at once
	var nonces [][]byte
	for range 2 {
		r, conn := start(t, g)
		h := meet(t, conn).serve()
		h.waitPlain(func(f []byte) bool { return len(f) > 240 }) // and goes on
		nonces = append(nonces, h.nonce)
		r.stop()
	}
	require.NotEqual(t, nonces[0], nonces[1])
}

func TestFramingPlainOffersNothing(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{DHCP: static(), Framing: guestswitch.FramingPlain})
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	_, err := conn.Write(encode(message(guestMAC, gatewayMAC, accept, make([]byte, 16))))
	require.NoError(t, err)
	h.waitFrame(func(e packet.Ethernet) bool {
		require.NotEqual(t, uint16(packet.EtherOffload), e.Type)
		return e.Type == packet.EtherIPv6 // what the kernel says to a new network
	})
	h.answers()
	require.EqualValues(t, 1, r.guest.Stats().Refused)
	r.stop()
}

// What follows ACCEPT is in offload format, in the same segment already; COMMIT is
// the guest's last plain frame.
func TestAcceptAndCommit(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{DHCP: static()})
	h := meet(t, conn).serve()
	r.wait(guestswitch.Configured)
	h.answersPlain()
	h.write(encode(arpRequest()), h.accept(), record{frame: arpRequest()}.encode(), record{frame: arpRequest()}.encode())
	replies := 0
	committed := h.waitPlain(func(f []byte) bool {
		if isARPReply(f) {
			replies++
		}
		return isMessage(f, commit)
	})
	require.Equal(t, message(gatewayMAC, guestMAC, commit, h.nonce), committed)
	for replies < 3 {
		h.waitRecord(func(r record) bool { return isARPReply(r.frame) })
		replies++
	}
	require.Zero(t, r.guest.Stats().Refused)

	// Once is enough.
	h.write(record{frame: message(guestMAC, gatewayMAC, accept, h.nonce)}.encode())
	h.answers()
	require.EqualValues(t, 1, r.guest.Stats().Refused)
	r.stop()
}

// A guest that has nothing to say says that it has understood.
func TestCommitWithoutTraffic(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.NoDHCP()})
	h := meet(t, conn).serve()
	r.wait(guestswitch.Configured)
	r.ns.ip("link", "set", "eth0", "down")
	h.write(h.accept())
	h.waitPlain(func(f []byte) bool { return isMessage(f, commit) })
	r.stop()
}

func TestForgedAcceptChangesNothing(t *testing.T) {
	for name, forge := range map[string]func(f []byte) []byte{
		"wrong nonce":          func(f []byte) []byte { f[41] ^= 1; return f },
		"no nonce":             func(f []byte) []byte { clear(f[26:42]); return f },
		"no features":          func(f []byte) []byte { f[22] = 0; return f },
		"unknown feature":      func(f []byte) []byte { f[22] = 2; return f },
		"an unknown one more":  func(f []byte) []byte { f[25] = 0x80; return f },
		"another magic":        func(f []byte) []byte { f[14] = 'G'; return f },
		"another version":      func(f []byte) []byte { f[18] = 2; return f },
		"the offer, reflected": func(f []byte) []byte { f[19] = offer; return f },
		"a commitment":         func(f []byte) []byte { f[19] = commit; return f },
		"an unknown kind":      func(f []byte) []byte { f[19] = 4; return f },
		"shorter":              func(f []byte) []byte { return f[:59] },
		"header only":          func(f []byte) []byte { return f[:14] },
		"with a VLAN tag": func(f []byte) []byte {
			return slices.Insert(f, 12, 0x81, 0, 0, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guestswitch.Guest{DHCP: static()}
			r, conn := start(t, g)
			h := meet(t, conn).serve()
			r.wait(guestswitch.Configured)
			h.write(encode(forge(message(guestMAC, gatewayMAC, accept, bytes.Clone(h.nonce)))))
			h.answersPlain()
			if name != "with a VLAN tag" { // which is another frame, and harmless
				require.EqualValues(t, 1, g.Stats().Refused)
			}
			// And the true one counts still, however late.
			h.write(h.accept())
			h.waitPlain(func(f []byte) bool { return isMessage(f, commit) })
			h.answers()
			r.stop()
		})
	}
	t.Run("before the offer was read", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{DHCP: static()})
		_, err := conn.Write(encode(message(guestMAC, gatewayMAC, accept, make([]byte, 16))))
		require.NoError(t, err)
		h := meet(t, conn).serve()
		r.wait(guestswitch.Configured)
		h.answersPlain()
		r.stop()
	})
}

// tcpFrame is a segment to the guest with so much payload, and a checksum that is
// to be completed.
func tcpFrame(payload int) []byte {
	return tcpFrameTo(guestAddr.Addr(), payload)
}

func tcpFrameTo(dst netip.Addr, payload int) []byte {
	udp := packet.AppendUDP(nil, packet.Link{Src: gatewayMAC, Dst: guestMAC},
		netip.AddrPortFrom(gateway, 1), netip.AddrPortFrom(dst, 2), make([]byte, 12+payload))
	udp[14+9] = packet.ProtoTCP
	binary.BigEndian.PutUint16(udp[14+10:], 0)
	binary.BigEndian.PutUint16(udp[14+10:], packet.Checksum(0, udp[14:34]))
	udp[34+12] = 5 << 4
	return udp
}

// header is one of virtio, little-endian.
func header(flags, gsoType byte, hdrLen, gsoSize, csumStart, csumOffset uint16) (h [10]byte) {
	h[0], h[1] = flags, gsoType
	for i, v := range []uint16{hdrLen, gsoSize, csumStart, csumOffset} {
		binary.LittleEndian.PutUint16(h[2+2*i:], v)
	}
	return h
}

func TestBadHeadersFromTheHost(t *testing.T) {
	large := tcpFrame(4000)
	fragment := tcpFrame(4000)
	fragment[14+6] = 0x20
	short := tcpFrame(4000)
	binary.BigEndian.PutUint16(short[14+2:], 1000)
	offset := tcpFrame(4000)
	offset[34+12] = 4 << 4
	for name, c := range map[string]struct {
		record  record
		refused uint64
	}{
		"good":                          {record{header(1, 1, 54, 1460, 34, 16), large}, 0},
		"good, checksum only":           {record{header(1, 0, 0, 0, 34, 16), tcpFrame(1000)}, 0},
		"good, checksum is valid":       {record{header(2, 0, 0, 0, 0, 0), tcpFrame(1000)}, 0},
		"segments longer than the MTU":  {record{header(1, 1, 54, 1461, 34, 16), large}, 1},
		"long, and no segments":         {record{header(0, 0, 0, 0, 0, 0), large}, 1},
		"long, checksum only":           {record{header(1, 0, 54, 0, 34, 16), large}, 1},
		"segments of 0":                 {record{header(1, 1, 54, 0, 34, 16), large}, 1},
		"segments of 47":                {record{header(1, 1, 54, 47, 34, 16), large}, 1},
		"segments of 48":                {record{header(1, 1, 54, 48, 34, 16), large}, 0},
		"UDP":                           {record{header(1, 3, 54, 1000, 34, 6), large}, 1},
		"TCP over IPv6":                 {record{header(1, 4, 54, 1000, 34, 16), large}, 1},
		"UDP segments":                  {record{header(1, 5, 54, 1000, 34, 6), large}, 1},
		"ECN":                           {record{header(1, 0x81, 54, 1460, 34, 16), large}, 1},
		"unknown":                       {record{header(1, 2, 54, 1460, 34, 16), large}, 1},
		"no checksum to complete":       {record{header(0, 1, 54, 1460, 34, 16), large}, 1},
		"checksum begins at 0":          {record{header(1, 0, 0, 0, 0, 16), tcpFrame(100)}, 1},
		"checksum begins outside":       {record{header(1, 0, 0, 0, 154, 0), tcpFrame(100)}, 1},
		"checksum outside":              {record{header(1, 0, 0, 0, 34, 119), tcpFrame(100)}, 1},
		"checksum outside, wraps":       {record{header(1, 0, 0, 0, 65535, 65535), tcpFrame(100)}, 1},
		"checksum not where TCP's is":   {record{header(1, 1, 54, 1460, 34, 6), large}, 1},
		"begins not where TCP does":     {record{header(1, 1, 54, 1460, 38, 16), large}, 1},
		"headers longer than the frame": {record{header(0, 0, 65535, 0, 0, 0), tcpFrame(100)}, 1},
		"a fragment":                    {record{header(1, 1, 54, 1460, 34, 16), fragment}, 1},
		"another length inside":         {record{header(1, 1, 54, 1460, 34, 16), short}, 1},
		"TCP header too short":          {record{header(1, 1, 54, 1460, 34, 16), offset}, 1},
		"not IP at all":                 {record{header(1, 1, 14, 1460, 34, 16), append(arpRequest(), make([]byte, 4000)...)}, 1},
		"nothing of it there":           {record{header(1, 1, 54, 1460, 34, 16), large[:20]}, 1},
		"empty":                         {record{}, 1},
		"empty, with a header":          {record{header: header(1, 1, 54, 1460, 34, 16)}, 1},
		"shorter than Ethernet's":       {record{frame: make([]byte, 13)}, 1},
		"longest":                       {record{frame: make([]byte, 65549)}, 1},
		"of the reserved EtherType":     {record{frame: message(guestMAC, gatewayMAC, offer, make([]byte, 16))}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guestswitch.Guest{}
			r, h := startOffload(t, g)
			h.write(c.record.encode())
			h.answers()
			s := g.Stats()
			require.Equal(t, c.refused, s.Refused)
			require.Zero(t, s.Dropped) // what is let through is right in the kernel's eyes too
			r.stop()
		})
	}
}

// A length that no frame has ends the session, before anything of it is stored.
func TestBadLengthsFromTheHost(t *testing.T) {
	for _, n := range []uint32{0, 1, 9, 65560, 1 << 16 << 8, 1<<32 - 1} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r, h := startOffload(t, &guestswitch.Guest{})
			h.write(binary.LittleEndian.AppendUint32(nil, n))
			require.ErrorIs(t, r.end(), frame.ErrLength)
			require.ErrorContains(t, r.err, "guestswitch: the data connection failed: ")
			require.Equal(t, untouched, r.ns.state())
		})
	}
}

// Whatever gets through to the kernel, nothing ends.
func TestNoiseFromTheHost(t *testing.T) {
	g := &guestswitch.Guest{}
	r, h := startOffload(t, g)
	rng := rand.New(rand.NewPCG(3, 4))
	source := rand.NewChaCha8([32]byte{5})
	pick := func(v ...uint16) uint16 { return append(v, uint16(rng.Uint32()))[rng.IntN(len(v)+1)] }
	for range 200 {
		var batch []byte
		for range 20 {
			f := tcpFrame(rng.IntN(8000))
			if rng.IntN(4) == 0 {
				_, _ = source.Read(f[14:])
			}
			if rng.IntN(4) == 0 {
				f[rng.IntN(54)] = byte(rng.Uint32())
			}
			if f[12] == 0x88 && f[13] == 0xb5 || rng.IntN(8) == 0 {
				f = f[:rng.IntN(60)]
			}
			batch = append(batch, record{
				header(byte(pick(0, 1, 2)), byte(pick(0, 1, 1, 4)), pick(0, 54, 14), pick(0, 48, 1460), pick(34, 34, 0), pick(16, 16, 6)), f,
			}.encode()...)
		}
		h.write(batch)
	}
	h.answers()
	s := g.Stats()
	require.Positive(t, s.Refused)
	require.Positive(t, s.FramesIn-s.Dropped)
	r.stop()
}

// The format changes between two frames, under full load, and none is lost.
func TestFormatChangesUnderLoad(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{DHCP: static()})
	h := meet(t, conn)
	r.wait(guestswitch.Configured)
	r.ns.ip("neigh", "add", gateway.String(), "lladdr", net.HardwareAddr(gatewayMAC[:]).String(), "dev", "eth0")
	var c net.Conn
	r.ns.do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(t.Context(), "udp4", gateway.String()+":9")
		return err
	})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := 0; ; { // until it is closed; the kernel has to take each
			if _, err := c.Write(binary.BigEndian.AppendUint32(make([]byte, i%1400), uint32(i))); err == nil {
				i++
			} else if !errors.Is(err, syscall.ENOBUFS) {
				return
			}
		}
	}()
	last := 1 << 30
	offload := false
	for want := 0; want < last; {
		var rec record
		var err error
		if offload {
			rec, err = readRecord(h.in)
		} else {
			rec.frame, err = readPlain(h.in)
		}
		require.NoError(t, err)
		if isMessage(rec.frame, commit) {
			offload, last = true, want+1000
		}
		eth, _ := packet.ParseEthernet(rec.frame)
		ip, ok := packet.ParseIPv4(eth.Payload)
		if !ok || ip.Proto != packet.ProtoUDP || eth.Type != packet.EtherIPv4 {
			continue
		}
		require.Len(t, ip.Payload, 8+want%1400+4)
		require.Equal(t, uint32(want), binary.BigEndian.Uint32(ip.Payload[8+want%1400:]))
		if want++; want == 1000 {
			h.write(h.accept())
		}
	}
	require.NoError(t, c.Close())
	<-sent
	r.stop()
}

// A host that does not read holds up one direction only, even when it accepts.
func TestAcceptWhileTheHostDoesNotRead(t *testing.T) {
	g := &guestswitch.Guest{DHCP: static()}
	r, conn := start(t, g)
	h := meet(t, conn)
	r.wait(guestswitch.Configured)
	r.flood()
	out := g.Stats().FramesOut
	const n = 1000
	h.write(h.accept(), bytes.Repeat(record{frame: arpRequest()}.encode(), n))
	require.Eventually(t, func() bool { return g.Stats().FramesIn == n }, patience, time.Millisecond)
	require.Equal(t, out, g.Stats().FramesOut) // it is held up indeed

	h.serve() // reads again
	h.waitPlain(func(f []byte) bool { return isMessage(f, commit) })
	require.Eventually(t, func() bool {
		h.write(record{frame: arpRequest()}.encode()) // the full queue drops the answer, for a while
		for {
			select {
			case r := <-h.records:
				if isARPReply(r.frame) {
					return true
				}
			default:
				return false
			}
		}
	}, patience, 10*time.Millisecond)
	require.Zero(t, g.Stats().Refused)
	r.stop()
}

// The client's own frames, the last of which gives the lease back, change their
// format with the rest.
func TestDHCPInOffloadFormat(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{})
	h := meet(t, conn)
	h.write(h.accept())
	committed := make(chan struct{})
	kinds := make(chan dhcpv4.MessageType, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for offload := false; ; {
			var rec record
			var err error
			if offload {
				rec, err = readRecord(h.in)
			} else {
				rec.frame, err = readPlain(h.in)
			}
			if err != nil {
				return
			}
			if isMessage(rec.frame, commit) {
				offload = true
				close(committed)
			}
			eth, _ := packet.ParseEthernet(rec.frame)
			ip, _ := packet.ParseIPv4(eth.Payload)
			udp, ok := packet.ParseUDP(ip)
			if !ok || udp.DstPort != 67 {
				continue
			}
			m, err := dhcpv4.FromBytes(udp.Payload)
			if err != nil {
				continue
			}
			kinds <- m.MessageType()
			if answer := leases(guestAddr, time.Hour)(m); answer != nil {
				rec := record{frame: packet.AppendUDP(nil, packet.Link{Src: gatewayMAC, Dst: guestMAC},
					netip.AddrPortFrom(gateway, 67), netip.MustParseAddrPort("255.255.255.255:68"), answer.ToBytes())}
				_, _ = conn.Write(rec.encode())
			}
		}
	}()
	r.wait(guestswitch.Configured)
	<-committed
	r.stop()
	_ = conn.Close()
	<-done
	close(kinds)
	var last dhcpv4.MessageType
	for last = range kinds {
	}
	require.Equal(t, dhcpv4.MessageTypeRelease, last)
}

// FAILURES 14, with offload: nothing is left, the last session's format neither.
func TestTwentySessionsWithAndWithoutOffload(t *testing.T) {
	ns := newNamespace(t)
	g := &guestswitch.Guest{Tap: guestswitch.Tap{NetNS: ns.path}, DHCP: static()}
	once := func(offload bool) {
		near, far := socketPair(t)
		g.Dial = func(context.Context) (net.Conn, error) { return near, nil }
		configured := make(chan struct{}, 1)
		g.OnEvent = func(e guestswitch.Event) {
			if e.Kind == guestswitch.Configured {
				configured <- struct{}{}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		defer cancel()
		h := meet(t, far)
		h.serve()
		<-configured
		if offload {
			h.write(h.accept())
			h.waitPlain(func(f []byte) bool { return isMessage(f, commit) })
			h.answers()
		} else {
			h.answersPlain()
		}
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, far.Close())
		require.Equal(t, untouched, ns.state())
	}
	once(true)
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	for i := range 20 {
		once(i%2 == 0)
	}
	require.Eventually(t, func() bool {
		return runtime.NumGoroutine() <= goroutines+1 && descriptors(t) <= fds
	}, patience, 10*time.Millisecond)
}
