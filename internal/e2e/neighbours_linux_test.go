// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testNeighbours: two guests on one network.
func testNeighbours(t *testing.T, p programs) {
	l := newTrafficLab(t, p, "-forward", "udp:127.0.0.1:9007=192.168.127.3:7")
	other := newNamespace(t, "other")
	second := l.attach(other, "-mac", "5a:94:ef:e4:0c:ef")
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
		_, err := stream.Write([]byte("x"))
		require.NoError(t, err)
		_, err = stream.Read(make([]byte, 1))
		require.NoError(t, err)

		second.signal(syscall.SIGSTOP)
		flood(t, l.host, "127.0.0.1:9007")
		// Both are in the same broadcast domain: the neighbour's queue gets these too.
		_, err = l.guest.try("ping", "-c", "1", "-W", "1", otherAddr)
		require.Error(t, err, "the other guest is not stopped")
		transfer(t, l.guest, worldAddr)
		transfer(t, l.guest, hostAlias)
		transfer(t, l.host, forwardedHTTP)
		require.Equal(t, worldAddr, dig(l.guest, "www.example.test").answers())

		second.signal(syscall.SIGCONT)
		_, err = stream.Write([]byte("y"))
		require.NoError(t, err)
		_, err = stream.Read(make([]byte, 1))
		require.NoError(t, err, "the connection of the guest that was stopped is dead")
		transfer(t, other, worldAddr)
	})
}

// flood sends more than any queue holds.
func flood(t *testing.T, n *namespace, address string) {
	t.Helper()
	conn := n.mustDial("udp4", address)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.(*net.UDPConn).SetWriteBuffer(1<<20))
	payload := make([]byte, 32<<10)
	for range 64 << 20 / len(payload) {
		require.NoError(t, conn.SetWriteDeadline(time.Now().Add(patience)))
		if _, err := conn.Write(payload); err != nil {
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
	}
}
