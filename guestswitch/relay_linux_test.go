// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// static is a configuration that needs no server, and no ARP for the gateway.
func static() guestswitch.DHCP {
	return guestswitch.StaticDHCP(guestswitch.Lease{Addr: guestAddr, Router: gateway})
}

// arpRequest asks for the guest's address.
func arpRequest() []byte {
	return packet.AppendARP(nil, packet.Link{Src: gatewayMAC, Dst: packet.Broadcast}, packet.ARP{
		Op: 1, SenderMAC: gatewayMAC, Sender: gateway, Target: guestAddr.Addr(),
	})
}

// answers waits until the kernel behind the tap answers.
func (h *host) answers() {
	h.t.Helper()
	_, err := h.conn.Write(encode(arpRequest()))
	require.NoError(h.t, err)
	eth := h.waitFrame(func(e packet.Ethernet) bool {
		a, ok := packet.ParseARP(e.Payload)
		return ok && e.Type == packet.EtherARP && a.Op == 2
	})
	a, _ := packet.ParseARP(eth.Payload)
	require.Equal(h.t, guestMAC, a.SenderMAC)
}

// What a host must not be able to do to a guest: each of these is dropped, and
// the next good frame is carried.
func TestBadFramesFromTheHost(t *testing.T) {
	padded := func(etherType uint16, n int) []byte {
		f := make([]byte, n)
		copy(f, guestMAC[:])
		copy(f[6:], gatewayMAC[:])
		binary.BigEndian.PutUint16(f[12:], etherType)
		return f
	}
	noise := make([]byte, 1400)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(noise)
	for name, c := range map[string]struct {
		frame   []byte
		refused uint64
	}{
		"empty":                {nil, 1},
		"shorter than header":  {padded(packet.EtherIPv4, 60)[:13], 1},
		"header only":          {padded(packet.EtherIPv4, 14), 0},
		"as long as the MTU":   {padded(packet.EtherIPv4, 1500+14), 0},
		"longer than the MTU":  {padded(packet.EtherIPv4, 1500+15), 1},
		"a VLAN tag more":      {padded(packet.EtherVLAN, 1500+18), 0},
		"and a byte":           {padded(packet.EtherVLAN, 1500+19), 1},
		"longest":              {padded(packet.EtherIPv4, 65535), 1},
		"reserved EtherType":   {padded(packet.EtherOffload, 60), 1},
		"random":               {noise, 0},
		"DHCP for us, garbage": {packet.AppendUDP(nil, packet.Link{Src: gatewayMAC, Dst: guestMAC}, netip.AddrPortFrom(gateway, 67), netip.AddrPortFrom(guestAddr.Addr(), 68), noise), 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guestswitch.Guest{}
			r, conn := start(t, g)
			h := serve(t, conn, leases(guestAddr, time.Hour))
			r.wait(guestswitch.Configured)
			before := g.Stats().Refused
			_, err := conn.Write(encode(c.frame))
			require.NoError(t, err)
			h.answers()
			require.Equal(t, before+c.refused, g.Stats().Refused)
			r.stop()
		})
	}
}

// The answer to another client behind the tap is for that one.
func TestForeignDHCPReachesTheTap(t *testing.T) {
	g := &guestswitch.Guest{}
	r, conn := start(t, g)
	serve(t, conn, leases(guestAddr, time.Hour))
	r.wait(guestswitch.Configured)

	var got []byte
	listening := make(chan net.PacketConn, 1)
	received := make(chan struct{})
	go func() {
		defer close(received)
		p := <-listening
		buf := make([]byte, 2048)
		_ = p.SetReadDeadline(time.Now().Add(patience))
		n, _, _ := p.ReadFrom(buf)
		got = buf[:n]
		_ = p.Close()
	}()
	r.ns.do(func() error {
		p, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", ":68")
		listening <- p
		return err
	})
	other, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 9})
	require.NoError(t, err)
	offer := reply(other, dhcpv4.MessageTypeOffer).ToBytes()
	_, err = conn.Write(encode(packet.AppendUDP(nil, packet.Link{Src: gatewayMAC, Dst: packet.Broadcast},
		netip.AddrPortFrom(gateway, 67), netip.MustParseAddrPort("255.255.255.255:68"), offer)))
	require.NoError(t, err)
	<-received
	require.Equal(t, offer, got)
	r.stop()
}

func TestFramesOutOfTheGuestArriveWholeAndInOrder(t *testing.T) {
	const datagrams = 3000
	r, conn := start(t, &guestswitch.Guest{DHCP: static(), Tap: guestswitch.Tap{MTU: 9000}})
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	r.ns.ip("neigh", "add", gateway.String(), "lladdr", net.HardwareAddr(gatewayMAC[:]).String(), "dev", "eth0")
	payload := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 4+i*7919%8000) }
	r.ns.do(func() error {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "udp4", gateway.String()+":9")
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		for i := range datagrams {
			if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(i)), payload(i)...)); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range datagrams {
		eth := h.waitFrame(func(e packet.Ethernet) bool {
			ip, ok := packet.ParseIPv4(e.Payload)
			return ok && ip.Proto == packet.ProtoUDP
		})
		ip, _ := packet.ParseIPv4(eth.Payload)
		udp, ok := packet.ParseUDP(ip)
		require.True(t, ok)
		require.Equal(t, uint32(i), binary.BigEndian.Uint32(udp.Payload))
		require.Equal(t, payload(i), udp.Payload[4:])
	}
	r.stop()
}

func TestReservedEtherTypeFromTheTapIsDropped(t *testing.T) {
	g := &guestswitch.Guest{DHCP: static()}
	r, conn := start(t, g)
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	h.waitFrame(func(e packet.Ethernet) bool { return e.Type == packet.EtherOffload }) // the offer
	index := r.ns.link("eth0").Index
	r.ns.do(func() error {
		fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer func() { _ = syscall.Close(fd) }()
		f := make([]byte, 60)
		for range 1000 { // more than one turn of the reader
			binary.BigEndian.PutUint16(f[12:], packet.EtherOffload)
			if err := syscall.Sendto(fd, f, 0, &syscall.SockaddrLinklayer{Ifindex: index}); err != nil {
				return err
			}
		}
		binary.BigEndian.PutUint16(f[12:], 0x88b6)
		return syscall.Sendto(fd, f, 0, &syscall.SockaddrLinklayer{Ifindex: index})
	})
	h.waitFrame(func(e packet.Ethernet) bool {
		require.NotEqual(t, uint16(packet.EtherOffload), e.Type)
		return e.Type == 0x88b6
	})
	require.EqualValues(t, 1000, g.Stats().Refused)
	r.stop()
}

func TestTheEndOfTheConnectionIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		last []byte
		want error
	}{
		"between two frames": {encode(arpRequest()), io.EOF},
		"inside a length":    {[]byte{60}, io.ErrUnexpectedEOF},
		"inside a frame":     {encode(arpRequest())[:20], io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			r, conn := start(t, &guestswitch.Guest{})
			r.wait(guestswitch.Connected)
			_, err := conn.Write(c.last)
			require.NoError(t, err)
			require.NoError(t, conn.(*net.UnixConn).CloseWrite())
			require.ErrorIs(t, r.end(), c.want)
			require.ErrorContains(t, r.err, "guestswitch: the host closed")
			var last guestswitch.Event
			for len(r.events) > 0 {
				last = <-r.events
			}
			require.Equal(t, guestswitch.Event{Kind: guestswitch.Lost, Err: r.err}, last)
			require.Equal(t, untouched, r.ns.state())
		})
	}
	t.Run("while the guest writes", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{DHCP: static()})
		r.wait(guestswitch.Configured)
		r.flood()
		require.NoError(t, conn.Close())
		err := r.end()
		require.True(t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
		require.Equal(t, untouched, r.ns.state())
	})
}

// flood fills the tap and the connection with datagrams.
func (r *run) flood() {
	r.t.Helper()
	r.ns.ip("neigh", "add", gateway.String(), "lladdr", net.HardwareAddr(gatewayMAC[:]).String(), "dev", "eth0")
	r.ns.do(func() error {
		c, err := (&net.Dialer{}).DialContext(r.t.Context(), "udp4", gateway.String()+":9")
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			return err
		}
		for range 6000 {
			if _, err := c.Write(make([]byte, 1400)); errors.Is(err, os.ErrDeadlineExceeded) {
				return nil // the queue is full and the socket waits for it
			} else if err != nil && !errors.Is(err, syscall.ENOBUFS) {
				return err
			}
		}
		return nil
	})
}

func TestDeletedTapIsAnError(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{})
	serve(t, conn, leases(guestAddr, time.Hour))
	r.wait(guestswitch.Configured)
	r.ns.ip("link", "del", "eth0")
	require.ErrorIs(t, r.end(), guestswitch.ErrTapLost)
	require.ErrorContains(t, r.err, "eth0")
	require.Equal(t, untouched, r.ns.state())
}

// A frame that the kernel does not take is counted and ends nothing.
func TestInterfaceDownAndUpAgain(t *testing.T) {
	g := &guestswitch.Guest{DHCP: static()}
	r, conn := start(t, g)
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	r.ns.ip("link", "set", "eth0", "down")
	for range 3 {
		_, err := conn.Write(encode(arpRequest()))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return g.Stats().Dropped == 3 }, patience, time.Millisecond)
	r.ns.ip("link", "set", "eth0", "up")
	h.answers()
	r.stop()
}

// The MTU that a script or an administrator sets counts at once.
func TestMTUChangedFromOutside(t *testing.T) {
	g := &guestswitch.Guest{DHCP: static()}
	r, conn := start(t, g)
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	long := append(arpRequest(), make([]byte, 2000)...)
	_, err := conn.Write(encode(long))
	require.NoError(t, err)
	h.answers()
	require.EqualValues(t, 1, g.Stats().Refused)
	r.ns.ip("link", "set", "eth0", "mtu", "3000")
	_, err = conn.Write(encode(long))
	require.NoError(t, err)
	h.answers()
	require.EqualValues(t, 1, g.Stats().Refused)
	r.stop()
}

func TestTraceWhileRunning(t *testing.T) {
	var mu sync.Mutex
	var out, in, first int
	g := &guestswitch.Guest{DHCP: static(), Trace: func(bool, []byte) { mu.Lock(); first++; mu.Unlock() }}
	r, conn := start(t, g)
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	h.answers()
	g.SetTrace(func(isOut bool, f []byte) {
		mu.Lock()
		defer mu.Unlock()
		eth, _ := packet.ParseEthernet(f)
		if eth.Type == packet.EtherARP && isOut {
			out++
		} else if eth.Type == packet.EtherARP {
			in++
		}
	})
	mu.Lock()
	require.Positive(t, first)
	mu.Unlock()
	h.answers()
	g.SetTrace(nil)
	h.answers()
	mu.Lock()
	require.Equal(t, []int{1, 1}, []int{in, out})
	mu.Unlock()
	s := g.Stats()
	require.EqualValues(t, 3, s.FramesIn)
	require.EqualValues(t, 3*len(arpRequest()), s.BytesIn)
	require.GreaterOrEqual(t, s.FramesOut, uint64(3))
	r.stop()
}

// What the DHCP client sends and what comes from the tap is traced one at a time, so
// that a trace of one direction needs no lock, and in the order of the wire.
func TestTraceOfOneDirectionIsInTheOrderOfTheWire(t *testing.T) {
	var out [][]byte // without a mutex, for the race detector
	r, conn := start(t, &guestswitch.Guest{Framing: guestswitch.FramingPlain, Trace: func(isOut bool, f []byte) {
		if isOut {
			out = append(out, bytes.Clone(f))
		}
	}})
	h := serve(t, conn, leases(guestAddr, time.Hour, option(58, 0, 0, 0, 1))) // T1: renewed every second
	r.wait(guestswitch.Configured)
	for renewed := 0; renewed < 2; {
		h.answers() // a frame of the tap
		select {
		case e := <-r.events:
			if e.Kind == guestswitch.Renewed {
				renewed++
			}
		default:
		}
	}
	r.stop()
	<-h.gone
	require.GreaterOrEqual(t, len(out), len(h.wire))
	require.Equal(t, h.wire, out[:len(h.wire)], "the last may have come too late for the host")
}

// The field is read as a run begins: changing it later does nothing to that run.
func TestTraceIsReadWhenARunBegins(t *testing.T) {
	traced := make(chan struct{}, 1000)
	g := &guestswitch.Guest{DHCP: static(), Trace: func(bool, []byte) { traced <- struct{}{} }}
	r, conn := start(t, g)
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	g.Trace = func(bool, []byte) { t.Error("of no run") }
	h.answers()
	r.stop()
	require.NotEmpty(t, traced)
}

// The guest's answer to a host that reads nothing is a full queue in the kernel,
// not memory; and it still ends at once. FAILURES 15.
func TestCancelWithABlockedWrite(t *testing.T) {
	for name, dhcp := range map[string]guestswitch.DHCP{"static": static(), "with a lease to give back": nil} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe() // no buffer at all
			g := &guestswitch.Guest{DHCP: dhcp, Dial: func(context.Context) (net.Conn, error) { return near, nil }}
			r := startDialled(t, newNamespace(t), g)
			var hold sync.Once
			held := make(chan struct{})
			go func() { // answers DHCP, and stops reading at the first datagram
				f := frame.NewReader(far)
				answer := &host{t: t, conn: far, answer: leases(guestAddr, time.Hour), asked: make(chan *dhcpv4.DHCPv4, 100), frames: make(chan []byte, 1000)}
				for {
					b, err := f.Next()
					if err != nil {
						return
					}
					if ip, _ := packet.ParseIPv4(b[14:]); len(ip.Payload) == 1408 {
						hold.Do(func() { close(held) })
						return
					}
					answer.got(b)
				}
			}()
			t.Cleanup(func() { _ = far.Close() })
			r.wait(guestswitch.Configured)
			r.flood()
			<-held
			r.stop()
		})
	}
}

func TestCancelIsPromptInEachPhase(t *testing.T) {
	t.Run("dialling", func(t *testing.T) {
		dialling := make(chan struct{})
		r := startDialled(t, newNamespace(t), &guestswitch.Guest{Dial: func(ctx context.Context) (net.Conn, error) {
			close(dialling)
			<-ctx.Done()
			return nil, fmt.Errorf("dial: %w", ctx.Err())
		}})
		<-dialling
		r.stop()
	})
	t.Run("no DHCP server", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{})
		h := serve(t, conn, silent)
		h.waitAsked(dhcpv4.MessageTypeDiscover)
		r.stop()
	})
	t.Run("offered, not acknowledged", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{})
		h := serve(t, conn, func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			if m.MessageType() == dhcpv4.MessageTypeRequest {
				return nil
			}
			return leases(guestAddr, time.Hour)(m)
		})
		h.waitAsked(dhcpv4.MessageTypeRequest)
		r.stop()
	})
	t.Run("idle", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{})
		serve(t, conn, leases(guestAddr, time.Hour))
		r.wait(guestswitch.Configured)
		r.stop()
	})
	t.Run("busy both ways", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{DHCP: static()})
		h := serve(t, conn, silent)
		r.wait(guestswitch.Configured)
		busy := make(chan struct{})
		var once sync.Once
		var writers sync.WaitGroup
		writers.Go(func() {
			for {
				if _, err := h.conn.Write(encode(arpRequest())); err != nil {
					return
				}
			}
		})
		writers.Go(func() {
			for {
				select {
				case <-h.frames:
					once.Do(func() { close(busy) })
				case <-r.done:
					return
				}
			}
		})
		<-busy
		r.stop()
		writers.Wait()
	})
}
