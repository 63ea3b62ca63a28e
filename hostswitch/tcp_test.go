// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

// The whole of a guest's network over a socket that every system has: an address, names,
// connections out, by way of NAT too, and in, as the host and the guest ask for
// them. After Close nothing is left, and the next network has the same ports.
func TestNetworkOverTCP(t *testing.T) {
	server := hostTCP(t, func(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, c) }) // not by splice, whose pipes net keeps
	datagrams := hostUDP(t)
	local := freePort(t)
	once := func(t *testing.T) { networkOverTCP(t, server, datagrams, local) }
	t.Run("first", once) // starts what is started once in a process
	before := measure()
	for range 3 {
		t.Run("again", once)
	}
	settles(t, before)
}

func networkOverTCP(t *testing.T, server, datagrams netip.AddrPort, local string) {
	sw, err := hostswitch.New(hostswitch.Config{
		NAT:      map[netip.Addr]netip.Addr{world: netip.MustParseAddr("127.0.0.1"), hostAlias: netip.MustParseAddr("127.0.0.1")},
		Forwards: []hostswitch.Forward{{Local: local, Remote: ":80"}, {Protocol: "udp", Local: local, Remote: ":80"}},
	})
	require.NoError(t, err)
	defer sw.Close() //nolint:errcheck // again
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- sw.Serve(context.Background(), ln) }()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp4", ln.Addr().String())
	require.NoError(t, err)
	g := guestOn(t, conn)

	lease, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	require.Equal(t, netip.PrefixFrom(guestAddr(2), 24), lease.Addr)
	found, err := g.Lookup(withTimeout(t), "host.docker.internal")
	require.NoError(t, err)
	require.Equal(t, []netip.Addr{hostAlias}, found)

	for _, to := range []netip.AddrPort{server, netip.AddrPortFrom(world, server.Port())} {
		out, err := g.DialContext(withTimeout(t), "tcp", to.String())
		require.NoError(t, err)
		require.Equal(t, "out", exchange(t, out, "out"))
		require.NoError(t, out.Close())
	}
	out, err := g.DialContext(withTimeout(t), "udp", datagrams.String())
	require.NoError(t, err)
	require.Equal(t, "out", string(datagram(t, out, []byte("out"))))
	require.NoError(t, out.Close())

	inside, err := g.Listen("tcp", ":80")
	require.NoError(t, err)
	serve(t, inside, echo)
	packets, err := g.ListenPacket("udp", ":80")
	require.NoError(t, err)
	echoPackets(t, packets)
	require.Equal(t, "in", hostExchange(t, local, "in"))
	require.Equal(t, "in", string(datagram(t, hostDial(t, "udp", local), []byte("in"))))
	status, body := call(t, g.HTTPClient(), http.MethodPost, gatewayAPI+"/services/forwarder/expose", `{"local":"127.0.0.1:0","remote":":80"}`)
	require.Equal(t, http.StatusOK, status, body)
	for _, f := range sw.Forwards() {
		if f.Protocol == "tcp" {
			require.Equal(t, "in", hostExchange(t, f.Local, "in"), f)
		}
	}
	require.Len(t, sw.Forwards(), 3)

	require.NoError(t, sw.Close())
	require.ErrorIs(t, await(t, served, "Serve"), hostswitch.ErrClosed)
	_, err = new(net.Dialer).DialContext(t.Context(), "tcp4", local)
	require.ErrorIs(t, err, hostswitch.ErrRefused)
	require.NoError(t, g.Close())
}
