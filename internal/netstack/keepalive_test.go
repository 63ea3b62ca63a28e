// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"context"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// loop returns both ends of a connection of a stack with itself, and what takes
// the cable away.
func loop(t *testing.T) (dialled, accepted *Conn, unplug func()) {
	self := make(chan []byte, 1024)
	var unplugged atomic.Bool
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	s, err := New(Config{MTU: 1500, MAC: mac[:], Router: true, Output: func(_ packet.MAC, h frame.Header, parts [][]byte) {
		if unplugged.Load() {
			return
		}
		var f []byte
		for _, p := range parts {
			f = append(f, p...)
		}
		h.Complete(f) // none is long enough to be segmented
		select {
		case self <- f:
		default:
		}
	}})
	require.NoError(t, err)
	conns := make(chan *Conn, 1)
	s.HandleTCP(func(_ context.Context, r *Request) {
		if c, err := r.Accept(); err == nil {
			conns <- c
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for f := range self {
			copy(f, mac[:])
			s.Deliver(f)
		}
	}()
	t.Cleanup(func() { s.Close(); close(self); <-done })
	here := netip.MustParseAddr("192.168.127.1")
	require.NoError(t, s.AddAddress(netip.PrefixFrom(here, 24)))
	require.NoError(t, s.AddAddress(netip.MustParsePrefix("192.168.127.2/24")))
	require.NoError(t, s.SetRoutes(netip.MustParsePrefix("192.168.127.0/24"), netip.Addr{}))
	dialled, err = s.DialTCP(t.Context(), netip.MustParseAddrPort("192.168.127.2:1000"), netip.AddrPortFrom(here, 80))
	require.NoError(t, err)
	return dialled, <-conns, func() { unplugged.Store(true) }
}

// requireTimeout wants c to find out by itself: nobody reads or writes.
func requireTimeout(t *testing.T, c *Conn) {
	select {
	case <-c.Broken().Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the connection does not break")
	}
	_, err := io.ReadAll(c)
	require.ErrorIs(t, err, errTimedOut)
}

// FAILURES 26. In the package, because nobody waits for the real interval.
func TestAPeerThatIsGoneIsGivenUp(t *testing.T) {
	c, _, unplug := loop(t)
	require.True(t, c.ep.SocketOptions().GetKeepAlive())
	var idle tcpip.KeepaliveIdleOption
	require.Nil(t, c.ep.GetSockOpt(&idle))
	require.EqualValues(t, keepAliveIdle, idle)

	soon := tcpip.KeepaliveIdleOption(time.Millisecond)
	often := tcpip.KeepaliveIntervalOption(time.Millisecond)
	unplug()
	require.Nil(t, c.ep.SetSockOpt(&soon))
	require.Nil(t, c.ep.SetSockOpt(&often))
	c.ep.SocketOptions().SetKeepAlive(true)
	requireTimeout(t, c)
}

func TestAPeerThatTakesNoDataIsGivenUp(t *testing.T) {
	c, _, unplug := loop(t)
	soon := tcpip.TCPUserTimeoutOption(time.Millisecond) // not after the usual retransmissions
	require.Nil(t, c.ep.SetSockOpt(&soon))
	unplug()
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	requireTimeout(t, c)
}

// What a guest can make the host hold by opening connections and not reading.
func TestConnsBeginWithSmallBuffers(t *testing.T) {
	dialled, accepted, _ := loop(t)
	for name, c := range map[string]*Conn{"dialled": dialled, "accepted": accepted} {
		require.EqualValues(t, tcpBuffer, c.ep.SocketOptions().GetSendBufferSize(), name)
		require.EqualValues(t, tcpBuffer, c.ep.SocketOptions().GetReceiveBufferSize(), name)
	}
}

// Nobody is left to give it up who would wait for what it still has to send.
func TestAClosedConnIsGivenUpByItself(t *testing.T) {
	c, _, _ := loop(t)
	var limit tcpip.TCPUserTimeoutOption
	require.Nil(t, c.ep.GetSockOpt(&limit))
	require.Zero(t, limit, "while it is open")
	require.NoError(t, c.Close())
	require.Nil(t, c.ep.GetSockOpt(&limit))
	require.EqualValues(t, keepAliveIdle+keepAliveCount*keepAliveInterval, limit)
}
