// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// testNeighbours: two guests on one network.
func testNeighbours(t *testing.T, p programs) {
	l := newTrafficLab(t, p)
	other := newNamespace(t, "other")
	const otherMAC = "5a:94:ef:e4:0c:ef"
	second := l.attach(other, "-mac", otherMAC)
	otherAddr, _, _ := strings.Cut(waitAddress(t, other, "eth0", second), "/")
	require.Equal(t, "192.168.127.3", otherAddr)
	serve(t, other, "0.0.0.0")

	t.Run("reach each other", func(t *testing.T) {
		for _, way := range []struct {
			from, to *namespace
			address  string
		}{{l.guest, other, otherAddr}, {other, l.guest, guestAddr}} {
			way.from.run("ping", "-c", "1", "-W", "10", way.address)
			require.Equal(t, banner(way.to), way.from.run("curl", "-sS", "http://"+way.address))
			transfer(t, way.from, way.address)
		}
	})

	// FAILURES 29: what one guest does not read is in nobody else's way.
	t.Run("one stops reading", func(t *testing.T) {
		stream := other.mustDial("tcp4", worldAddr+":"+portEcho)
		converse(t, stream)
		l.guest.run("ip", "neigh", "replace", otherAddr, "lladdr", otherMAC, "dev", "eth0", "nud", "permanent")

		second.Signal(syscall.SIGSTOP)
		flood(t, l.guest, otherAddr)
		_, err := l.guest.try("ping", "-c", "1", "-W", "1", otherAddr)
		require.Error(t, err, "the other guest is not stopped")
		transfer(t, l.guest, worldAddr)
		transfer(t, l.guest, hostAlias)
		transfer(t, l.host, forwardedHTTP)
		require.Equal(t, worldAddr, dig(l.guest, "www.example.test").answers())

		second.Signal(syscall.SIGCONT)
		converse(t, stream)
		transfer(t, other, worldAddr)
	})
}

// converse has a byte echoed.
func converse(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.NoError(t, err)
}

// flood sends more to a guest than the host's switch keeps for it. Each burst is
// shorter than the tap's queue, and an answer to what was sent after it says that
// the switch has had it.
func flood(t *testing.T, n *namespace, address string) {
	t.Helper()
	pc := n.listenPacket("0.0.0.0:0")
	defer func() { _ = pc.Close() }()
	to := &net.UDPAddr{IP: net.ParseIP(address), Port: 9}
	for i := range 32 {
		for range 400 {
			_, err := pc.WriteTo(make([]byte, 1400), to)
			require.NoError(t, err)
		}
		echo(t, pc, worldAddr+":"+portEcho, strconv.Itoa(i))
	}
}
