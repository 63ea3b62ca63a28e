// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

func TestDialContext(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	from := make(chan net.Addr, 1)
	g.serve(t, 80, func(c net.Conn) { from <- c.RemoteAddr(); echo(c) })
	for _, network := range []string{"tcp", "tcp4", "TCP"} {
		c, err := sw.DialContext(t.Context(), network, "192.168.127.2:80")
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		require.Equal(t, "hello", exchange(t, c, "hello"), "half-close and all")
		require.Equal(t, gateway.String(), (<-from).(*net.TCPAddr).IP.String(), "the guest sees the gateway")
		require.NoError(t, c.Close())
	}
	_, err := sw.DialContext(t.Context(), "tcp", "192.168.127.2:81")
	require.ErrorIs(t, err, hostswitch.ErrRefused)
	require.Regexp(t, "^hostswitch: dial tcp 192.168.127.2:81: [^:]*$", err.Error(), "says it once")

	pc, err := g.ListenUDP(netip.AddrPortFrom(g.addr, 80))
	require.NoError(t, err)
	echoPackets(t, pc)
	c, err := sw.DialContext(t.Context(), "udp", "192.168.127.2:80")
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // the end
	require.Equal(t, "hello", string(datagram(t, c, []byte("hello"))))
}

func TestDialContextEnds(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attachRaw(t, sw, 2)
	asked := g.watch(isAny)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	dial := func(ctx context.Context) {
		_, err := sw.DialContext(ctx, "tcp", "192.168.127.2:80")
		result <- err
	}
	go dial(ctx)
	await(t, asked, "the switch asks for the guest, which says nothing")
	cancel()
	require.ErrorIs(t, await(t, result, "DialContext"), context.Canceled)

	g.send(g.whoHas(gateway)) // now the gateway knows it; its SYN gets no answer
	go dial(t.Context())
	await(t, g.watch(isProto(6)), "SYN")
	require.NoError(t, sw.Close())
	require.ErrorIs(t, await(t, result, "DialContext"), hostswitch.ErrClosed)
}

func TestListen(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	for _, address := range []string{":0", "192.168.127.1:0", "192.168.127.254:0", ":8080"} {
		ln, err := sw.Listen("tcp", address)
		require.NoError(t, err, address)
		at := ln.Addr().(*net.TCPAddr).AddrPort()
		require.NotZero(t, at.Port())
		served := during(func() {
			if c, err := ln.Accept(); err == nil {
				echo(c)
				_ = c.Close()
			}
		})
		require.Equal(t, "x", exchange(t, g.dial(t, at), "x"))
		<-served
		require.NoError(t, ln.Close())
		_, err = ln.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	}
	pc, err := sw.ListenPacket("udp", ":0")
	require.NoError(t, err)
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	require.Equal(t, gateway, at.Addr())
	echoPackets(t, pc)
	require.Equal(t, "y", string(datagram(t, g.dialUDP(t, at), []byte("y"))))

	_, err = sw.Listen("tcp", ":80")
	require.ErrorIs(t, err, hostswitch.ErrAddrInUse, "the HTTP API is there")
	require.Regexp(t, "^hostswitch: listen tcp 192.168.127.1:80: [^:]*$", err.Error(), "says it once")
	_, err = sw.ListenPacket("udp", ":53")
	require.ErrorIs(t, err, hostswitch.ErrAddrInUse, "DNS is there")
}

func TestDialAndListenErrorsSayWhatToWrite(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	dial := func(network, address string) error {
		_, err := sw.DialContext(t.Context(), network, address)
		return err
	}
	listen := func(network, address string) error { _, err := sw.Listen(network, address); return err }
	packets := func(network, address string) error { _, err := sw.ListenPacket(network, address); return err }
	for name, tc := range map[string]struct {
		call             func(network, address string) error
		network, address string
		want             string
	}{
		"network":             {dial, "unix", "192.168.127.2:80", `write "tcp" or "udp"`},
		"IPv6":                {dial, "tcp6", "192.168.127.2:80", `write "tcp" or "udp"`},
		"no port":             {dial, "tcp", "192.168.127.2", "as in 192.168.127.2:80"},
		"port 0":              {dial, "tcp", "192.168.127.2:0", "no port"},
		"name":                {dial, "tcp", "guest:80", "as in 192.168.127.2:80"},
		"outside":             {dial, "tcp", "198.51.100.7:80", "not in the virtual network 192.168.127.0/24"},
		"IPv6 address":        {dial, "udp", "[fd00::2]:80", "not in the virtual network 192.168.127.0/24"},
		"listen network":      {listen, "udp", ":80", `write "tcp"`},
		"listen unknown":      {listen, "sctp", ":80", `write "tcp" or "udp"`},
		"listen no port":      {listen, "tcp", "192.168.127.1", "missing port"},
		"listen port by name": {listen, "tcp", ":http", `"http"`},
		"listen elsewhere":    {listen, "tcp", "192.168.127.2:80", "192.168.127.1"},
		"listen name":         {listen, "tcp", "gateway:80", "not an IPv4 address"},
		"packet network":      {packets, "tcp", ":80", `write "udp"`},
		"packet elsewhere":    {packets, "udp", "10.0.0.1:80", "192.168.127.1"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.call(tc.network, tc.address)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "hostswitch: ")
			require.ErrorContains(t, err, tc.network+" "+tc.address)
		})
	}
}

// What was opened inside ends with the switch.
func TestConnectionsEndWithTheSwitch(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	g.serve(t, 80, echo)
	c, err := sw.DialContext(t.Context(), "tcp", "192.168.127.2:80")
	require.NoError(t, err)
	ln, err := sw.Listen("tcp", ":0")
	require.NoError(t, err)
	pc, err := sw.ListenPacket("udp", ":0")
	require.NoError(t, err)
	ends := make(chan error, 3)
	go func() { _, err := c.Read(make([]byte, 1)); ends <- err }()
	go func() { _, err := ln.Accept(); ends <- err }()
	go func() { _, _, err := pc.ReadFrom(make([]byte, 1)); ends <- err }()
	require.NoError(t, sw.Close())
	for range 3 {
		require.Error(t, await(t, ends, "a blocked call"))
	}
	for _, closer := range []io.Closer{c, ln, pc} {
		_ = closer.Close()
	}
}
