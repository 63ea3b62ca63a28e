// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

package guest_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
)

// testNetwork: an agent shakes hands and joins a tap, in a namespace that the
// vsock is not in, to the host's network, which works; it is killed and started
// again, and it works each time. The last connection is ended by the host.
func testNetwork(t *testing.T) {
	ns := newNamespace(t)
	ln := ns.listen(talk.Inward)
	a := startAgent(t, ns)
	a.says(listening)
	refusesInsiders(t, discovery.RancherDesktop.HandshakePort, "READY")
	tellHost(t, talk.BeginPort)

	for life := range talk.Kills + 1 {
		if life > 0 {
			a.kill()
			a = startAgent(t, ns)
		}
		a.says(configured + talk.GuestAddr)
		ctx, cancel := context.WithTimeout(t.Context(), talk.Patience)
		defer cancel()
		addresses, err := ns.lookup(ctx, "host.docker.internal")
		require.NoError(t, err)
		require.Equal(t, []string{"192.168.127.254"}, addresses)
		inward := make(chan error, 1)
		go func() { inward <- answer(ln) }()
		conn, err := ns.dial(ctx, "tcp", addresses[0]+talk.Outward)
		require.NoError(t, err)
		require.NoError(t, talk.Ask(conn, talk.Short), "to the host's loopback, life %d", life)
		require.NoError(t, conn.Close())
		require.NoError(t, <-inward, "from the host, life %d", life)
	}
	tellHost(t, talk.EndPort)
	require.NoError(t, a.end(), "the host ends it")
}

// answer answers one connection.
func answer(ln *net.TCPListener) error {
	if err := ln.SetDeadline(time.Now().Add(talk.Patience)); err != nil {
		return err
	}
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	return errors.Join(talk.Answer(conn), conn.Close())
}
