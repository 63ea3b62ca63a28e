// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package dhcpserver_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/dhcpserver"
)

func TestADetachedPortKeepsNothingFromOthers(t *testing.T) {
	n := newNetwork(t, small)
	n.take(1, guestMAC)
	first, second := n.take(1, mac(1)), n.take(1, mac(2))
	offer := n.discover(1, mac(3)).yours()
	n.now = n.now.Add(time.Second)
	n.is(dhcpv4.MessageTypeAck, n.request(1, mac(1), ciaddr(first)))
	n.Detach(1)
	n.Detach(9)
	require.Len(t, n.Leases(), 3, "the guest may be back before they expire")

	require.Equal(t, first, n.take(2, mac(1), wants(second)), "sticky")
	require.Equal(t, offer, n.take(2, mac(4), wants(second)), "not while there is another")
	require.Equal(t, second, n.take(2, mac(5)), "there is no other")
	require.Nil(t, n.discover(2, mac(6)), "those that came back are not given away, nor is the static one")
	n.is(dhcpv4.MessageTypeNak, n.request(3, mac(2), ciaddr(second)))
	require.Equal(t, guest, n.take(3, guestMAC))
}

// A guest that reconnects again and again gets a new port each time.
func TestReconnectingDoesNotUseUpThePool(t *testing.T) {
	n := newNetwork(t, func(c *dhcpserver.Config) { small(c); c.MaxPerPort = 1 })
	for port := range uint64(20) {
		addr := n.take(port, mac(int(port)))
		if port%2 == 1 {
			n.decline(port, mac(int(port)), addr)
		}
		n.Detach(port)
	}
	addr := n.take(100, mac(100))
	for port := range uint64(20) {
		n.take(port, mac(200+int(port)))
		n.Detach(port)
	}
	n.is(dhcpv4.MessageTypeAck, n.request(100, mac(100), ciaddr(addr)))
}

// What a port takes over counts like what it takes new.
func TestTakingOverCountsForThePort(t *testing.T) {
	n := newNetwork(t, func(c *dhcpserver.Config) { c.MaxPerPort = 1 })
	live, gone := n.take(1, mac(1)), n.take(2, mac(2))
	n.Detach(2)
	n.take(3, mac(3))
	n.is(dhcpv4.MessageTypeNak, n.request(3, mac(1), ciaddr(live)))
	n.is(dhcpv4.MessageTypeNak, n.request(3, mac(2), ciaddr(gone)))
	require.EqualValues(t, 2, n.Stats().PortLimit)
	n.is(dhcpv4.MessageTypeAck, n.request(4, mac(2), ciaddr(gone)))
	require.Nil(t, n.discover(4, mac(4)), "it counts")
}

func TestAnOfferToAReturningClientIsHeld(t *testing.T) {
	n := newNetwork(t, func(c *dhcpserver.Config) { small(c); c.MaxPerPort = 1 })
	addr := n.take(1, mac(1))
	n.Detach(1)
	n.now = n.now.Add(2 * time.Hour)
	require.Equal(t, addr, n.discover(2, mac(1)).yours())
	require.Nil(t, n.discover(2, mac(2)), "it counts")
	n.take(3, mac(3))
	n.take(4, mac(4))
	require.Nil(t, n.discover(5, mac(5)), "it is not given away")
}

func TestARenewalIsNoNews(t *testing.T) {
	n := newNetwork(t, nil)
	for _, client := range []net.HardwareAddr{mac(1), guestMAC} {
		offer := n.discover(1, client)
		require.False(t, offer.Renewed)
		request := func(port uint64) bool {
			t.Helper()
			ack := n.request(port, client, ciaddr(offer.yours()))
			require.NotNil(t, ack.Lease)
			return ack.Renewed
		}
		require.False(t, request(1), "first")
		require.True(t, request(1))
		require.False(t, n.discover(1, client).Renewed)
		require.False(t, n.send(1, message(dhcpv4.MessageTypeInform, client, ciaddr(offer.yours()))).Renewed)
		require.False(t, n.request(1, client, wants(ip("192.168.127.99"))).Renewed, "a NAK")
		require.False(t, request(2), "another port")
		n.Detach(2)
		n.discover(3, client)
		require.False(t, request(3), "yet another, after an offer")
		n.release(3, client, offer.yours())
		require.False(t, request(3), "after a release")
		n.now = n.now.Add(time.Hour)
		require.False(t, request(3), "after its expiry")
	}
}

func TestOwner(t *testing.T) {
	n := newNetwork(t, nil)
	owner := func(a netip.Addr) string {
		id, ok := n.Owner(a, n.now)
		if !ok {
			require.Zero(t, id)
			return ""
		}
		return net.HardwareAddr(id[:]).String()
	}
	require.Equal(t, guestMAC.String(), owner(guest), "taken or not")
	offer := n.discover(1, mac(1)).yours()
	require.Empty(t, owner(offer))
	require.Equal(t, offer, n.take(1, mac(1)))
	require.Equal(t, mac(1).String(), owner(offer))
	require.Zero(t, testing.AllocsPerRun(100, func() { n.Owner(offer, n.now) }))
	n.Detach(1)
	require.Equal(t, mac(1).String(), owner(offer), "its packets may come before its next request")
	require.Empty(t, owner(gateway))
	require.Empty(t, owner(ip("10.0.0.1")))
	require.Empty(t, owner(netip.Addr{}))
	n.now = n.now.Add(time.Hour)
	require.Empty(t, owner(offer))
	declined := n.take(2, mac(2))
	n.decline(2, mac(2), declined)
	require.Empty(t, owner(declined))
}
