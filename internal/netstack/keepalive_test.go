// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// FAILURES 26. In the package, because nobody waits for the real interval.
func TestAPeerThatIsGoneIsGivenUp(t *testing.T) {
	self := make(chan []byte, 1024) // the stack is its own peer, until unplugged
	unplugged := make(chan struct{})
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	s, err := New(Config{MTU: 1500, MAC: mac[:], Router: true, Output: func(_ packet.MAC, parts [][]byte) {
		var f []byte
		for _, p := range parts {
			f = append(f, p...)
		}
		select {
		case <-unplugged:
		case self <- f:
		default:
		}
	}})
	require.NoError(t, err)
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
	ln, err := s.ListenTCP(netip.AddrPortFrom(here, 80))
	require.NoError(t, err)
	c, err := s.DialTCP(t.Context(), netip.MustParseAddrPort("192.168.127.2:1000"), ln.Addr().(*net.TCPAddr).AddrPort())
	require.NoError(t, err)
	require.True(t, c.ep.SocketOptions().GetKeepAlive())
	var idle tcpip.KeepaliveIdleOption
	require.Nil(t, c.ep.GetSockOpt(&idle))
	require.EqualValues(t, keepAliveIdle, idle)

	soon := tcpip.KeepaliveIdleOption(time.Millisecond)
	often := tcpip.KeepaliveIntervalOption(time.Millisecond)
	close(unplugged)
	require.Nil(t, c.ep.SetSockOpt(&soon))
	require.Nil(t, c.ep.SetSockOpt(&often))
	c.ep.SocketOptions().SetKeepAlive(true)
	_, err = io.ReadAll(c)
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
}
