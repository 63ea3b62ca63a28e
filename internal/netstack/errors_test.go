// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// The names of errors differ from system to system, so the system is asked.
func TestErrorsAreThoseOfTheSystem(t *testing.T) {
	var lc net.ListenConfig
	var d net.Dialer
	listen := func(addr string) (*net.TCPListener, error) {
		ln, err := lc.Listen(t.Context(), "tcp4", addr)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = ln.Close() })
		return ln.(*net.TCPListener), nil
	}
	connect := func(t *testing.T) (dialled, accepted *net.TCPConn) {
		ln, err := listen("127.0.0.1:0")
		require.NoError(t, err)
		c, err := d.DialContext(t.Context(), "tcp4", ln.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		accepted, err = ln.AcceptTCP()
		require.NoError(t, err)
		t.Cleanup(func() { _ = accepted.Close() })
		return c.(*net.TCPConn), accepted
	}
	for name, tt := range map[string]struct {
		ours   tcpip.Error
		theirs func(*testing.T) error
	}{
		"refused": {&tcpip.ErrConnectionRefused{}, func(t *testing.T) error {
			ln, err := listen("127.0.0.1:0")
			require.NoError(t, err)
			require.NoError(t, ln.Close())
			_, err = d.DialContext(t.Context(), "tcp4", ln.Addr().String())
			return err
		}},
		"reset": {&tcpip.ErrConnectionReset{}, func(t *testing.T) error {
			c, peer := connect(t)
			require.NoError(t, peer.SetLinger(0))
			require.NoError(t, peer.Close())
			_, err := c.Read(make([]byte, 1))
			return err
		}},
		"write after CloseWrite": {&tcpip.ErrClosedForSend{}, func(t *testing.T) error {
			c, _ := connect(t)
			require.NoError(t, c.CloseWrite())
			_, err := c.Write([]byte("x"))
			return err
		}},
		"address in use": {&tcpip.ErrPortInUse{}, func(t *testing.T) error {
			ln, err := listen("127.0.0.1:0")
			require.NoError(t, err)
			_, err = listen(ln.Addr().String())
			return err
		}},
		"address of another": {&tcpip.ErrBadLocalAddress{}, func(*testing.T) error {
			_, err := listen("203.0.113.1:0")
			return err
		}},
		"message too long": {&tcpip.ErrMessageTooLong{}, func(t *testing.T) error {
			pc, err := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { _ = pc.Close() })
			_, err = pc.WriteTo(make([]byte, 1<<16), pc.LocalAddr())
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, tt.theirs(t), asError(tt.ours))
		})
	}
	s := &Stack{}
	require.ErrorIs(t, s.WriteUDP(netip.AddrPort{}, netip.AddrPort{}, make([]byte, 1<<16)), errMessageSize)
}
