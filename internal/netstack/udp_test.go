// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

func listenUDP(t testing.TB, s *netstack.Stack, addr netip.Addr) *netstack.PacketConn {
	t.Helper()
	pc, err := s.ListenUDP(netip.AddrPortFrom(addr, 0))
	require.NoError(t, err)
	t.Cleanup(func() { _ = pc.Close() })
	require.NoError(t, pc.SetReadDeadline(time.Now().Add(patience)))
	return pc
}

func TestDatagramsCrossWhateverTheirSize(t *testing.T) {
	for _, mtu := range []int{576, 1500, 65000} {
		p := newPair(t, mtu)
		server := listenUDP(t, p.router, routerAddr)
		client, err := p.guest.DialUDP(netip.AddrPort{}, server.LocalAddr().(*net.UDPAddr).AddrPort())
		require.NoError(t, err)
		require.NoError(t, client.SetReadDeadline(time.Now().Add(patience)))
		for _, size := range []int{1, 1472, 1473, 9000, 65507} {
			sent := bytes.Repeat([]byte{byte(size)}, size)
			n, err := client.Write(sent)
			require.NoError(t, err, "%d at MTU %d", size, mtu)
			require.Equal(t, size, n)
			b := make([]byte, 1<<16)
			n, from, err := server.ReadFrom(b)
			require.NoError(t, err)
			require.Equal(t, sent, b[:n])
			require.Equal(t, client.LocalAddr().String(), from.String())

			_, err = server.WriteTo(b[:n], from)
			require.NoError(t, err)
			n, err = client.Read(b)
			require.NoError(t, err)
			require.Equal(t, sent, b[:n])
		}
		_, err = client.Write(make([]byte, 65508))
		require.ErrorIs(t, err, netstack.ErrMessageSize)
		require.NoError(t, client.Close())
	}
}

func TestWhatDoesNotFitTheBufferIsLost(t *testing.T) {
	p := newPair(t, 1500)
	server, client := listenUDP(t, p.router, routerAddr), listenUDP(t, p.guest, guestAddr)
	for _, m := range []string{"first", "second"} {
		_, err := client.WriteTo([]byte(m), server.LocalAddr())
		require.NoError(t, err)
	}
	b := make([]byte, 2)
	for _, want := range []string{"fi", "se"} {
		n, _, err := server.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, want, string(b[:n]))
	}
}

func TestPacketConnErrors(t *testing.T) {
	p := newPair(t, 1500)
	pc := listenUDP(t, p.guest, guestAddr)
	_, err := pc.WriteTo([]byte("x"), &net.TCPAddr{IP: routerAddr.AsSlice(), Port: 1})
	require.ErrorContains(t, err, "*net.UDPAddr")
	_, err = pc.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv6loopback, Port: 1})
	var addrErr *net.AddrError
	require.ErrorAs(t, err, &addrErr)

	_, err = p.guest.ListenUDP(pc.LocalAddr().(*net.UDPAddr).AddrPort())
	require.ErrorIs(t, err, netstack.ErrAddrInUse)

	require.NoError(t, pc.SetReadDeadline(time.Now().Add(-time.Second)))
	_, _, err = pc.ReadFrom(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, pc.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
	_, _, err = pc.ReadFrom(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)

	require.NoError(t, pc.Close())
	require.NoError(t, pc.Close())
	_, _, err = pc.ReadFrom(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = pc.WriteTo([]byte("x"), &net.UDPAddr{IP: routerAddr.AsSlice(), Port: 1})
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestAConnectedSocketHearsThatNobodyListens(t *testing.T) {
	p := newPair(t, 1500)
	c, err := p.guest.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(routerAddr, 9))
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, netstack.ErrRefused)
}

func TestHandleUDPTakesWhatNoSocketTakes(t *testing.T) {
	p := newPair(t, 1500)
	p.router.HandleUDP(func(_ uint64, src, dst netip.AddrPort, payload []byte) bool {
		if dst.Port() == 9 {
			return false
		}
		return p.router.WriteUDP(dst, src, append([]byte("echo "), payload...)) == nil
	})
	c, err := p.guest.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(worldAddr, 53))
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	for _, size := range []int{0, 1, 1400, 40000} {
		_, err = c.Write(make([]byte, size))
		require.NoError(t, err)
		b := make([]byte, 1<<16)
		n, err := c.Read(b)
		require.NoError(t, err, "%d bytes", size)
		require.Equal(t, size+5, n)
		require.Equal(t, "echo ", string(b[:5]))
	}

	unwanted, err := p.guest.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(worldAddr, 9))
	require.NoError(t, err)
	defer func() { _ = unwanted.Close() }()
	require.NoError(t, unwanted.SetReadDeadline(time.Now().Add(patience)))
	_, err = unwanted.Write([]byte("x"))
	require.NoError(t, err)
	_, err = unwanted.Read(make([]byte, 1))
	require.ErrorIs(t, err, netstack.ErrRefused, "it was answered with port unreachable")
}

func TestHandleUDPTakesFragmentsAndNothing(t *testing.T) {
	p := newPair(t, 576)
	got := make(chan []byte, 1)
	p.router.HandleUDP(func(_ uint64, _, dst netip.AddrPort, payload []byte) bool {
		got <- bytes.Clone(payload)
		return dst.Port() == 1
	})
	for port := uint16(1); port <= 2; port++ {
		c, err := p.guest.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(worldAddr, port))
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		for _, size := range []int{0, 1, 548, 549, 5000, 65507} {
			sent := make([]byte, size)
			for i := range sent {
				sent[i] = byte(i / 251)
			}
			_, err = c.Write(sent)
			require.NoError(t, err)
			require.True(t, bytes.Equal(sent, <-got), "%d bytes", size)
			if port == 2 { // not wanted: the packet is still whole enough to be quoted
				require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
				_, err = c.Read(make([]byte, 1))
				require.ErrorIs(t, err, netstack.ErrRefused, "%d bytes", size)
			}
		}
	}
}

func TestHandleUDPIsSparedDatagramsThatAreDamaged(t *testing.T) {
	r := newRaw(t)
	got := make(chan string, 8)
	r.HandleUDP(func(_ uint64, _, _ netip.AddrPort, payload []byte) bool { got <- string(payload); return true })
	build := func(text string) []byte {
		return packet.AppendUDP(nil, packet.Link{Src: guestMAC, Dst: routerMAC},
			netip.AddrPortFrom(guestAddr, 1), netip.AddrPortFrom(worldAddr, 2), []byte(text))
	}
	damaged := build("damaged")
	damaged[len(damaged)-1] ^= 1
	r.Deliver(damaged)
	unchecked := build("unchecked")
	copy(unchecked[packet.EthernetLen+packet.IPv4Len+6:], []byte{0, 0})
	r.Deliver(unchecked)
	r.Deliver(append(build("padded"), make([]byte, 20)...))
	require.Equal(t, "unchecked", <-got)
	require.Equal(t, "padded", <-got)
}

func TestWritesThatCannotBePackets(t *testing.T) {
	r := newRaw(t)
	at := netip.AddrPortFrom(routerAddr, 1)
	require.ErrorIs(t, r.WriteUDP(at, netip.AddrPortFrom(guestAddr, 1), make([]byte, 65508)), netstack.ErrMessageSize)
	require.ErrorIs(t, r.WriteICMP(routerAddr, guestAddr, make([]byte, 7)), netstack.ErrMessageSize)
}

func TestUnreachableQuotesWhatWasSent(t *testing.T) {
	r := newRaw(t)
	require.NoError(t, r.WriteUnreachable(3, guestAddr, worldAddr, packet.ProtoUDP, []byte("quoted bytes beyond eight")))
	p := r.next(t, packet.ProtoICMP)
	require.Equal(t, worldAddr, p.Src)
	require.Equal(t, guestAddr, p.Dst)
	require.Zero(t, packet.Checksum(0, p.Payload))
	require.Equal(t, []byte{3, 3}, p.Payload[:2])
	quoted, ok := packet.ParseIPv4(append(p.Payload[8:], make([]byte, 17)...))
	require.True(t, ok)
	require.Equal(t, guestAddr, quoted.Src)
	require.Equal(t, worldAddr, quoted.Dst)
	require.Equal(t, "quoted b", string(p.Payload[28:]))
}

// What is sent while the stack is closed is lost, and that is all.
func TestSendUDPWhileTheStackIsClosed(t *testing.T) {
	for range 1000 {
		s := newStack(t, netstack.Config{MTU: 1500, MAC: routerMAC[:], Router: true, Output: func(packet.MAC, frame.Header, [][]byte) {}}, routerAddr, netip.Addr{})
		r := raw{Stack: s}
		r.learn(guestAddr)
		sending, stop := make(chan struct{}), make(chan struct{})
		sent := during(func() {
			s.SendUDP(netip.AddrPortFrom(worldAddr, 2), netip.AddrPortFrom(guestAddr, 1), [][]byte{{1}})
			close(sending)
			for {
				select {
				case <-stop:
					return
				default:
					s.SendUDP(netip.AddrPortFrom(worldAddr, 2), netip.AddrPortFrom(guestAddr, 1), [][]byte{{1}})
				}
			}
		})
		await(t, sending, "the first datagram")
		s.Close()
		close(stop)
		await(t, sent, "the last datagram")
	}
}
