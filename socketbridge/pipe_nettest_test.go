// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// TestPipeIsAsGoodAsAConnection: what is on both sides of a pipe behaves towards each
// other as the two ends of one net.Conn do.
func TestPipeIsAsGoodAsAConnection(t *testing.T) {
	for _, route := range append(routes, [2]string{"memory", "memory"}, [2]string{"unix", "memory"}, [2]string{"memory", "tcp"}) {
		t.Run(route[0]+"-"+route[1], func(t *testing.T) { conform(t, route[0], route[1]) })
	}
}

func conform(t *testing.T, left, right string) {
	_, _ = kind(t, left) // to be skipped here: below, t would be the wrong one
	_, _ = kind(t, right)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, a := kind(t, left)
		server, b := kind(t, right)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = socketbridge.Pipe(a, b)
		}()
		return client.(net.Conn), server.(net.Conn), func() {
			_, _ = client.Close(), server.Close() // which a test may have done
			<-done
		}, nil
	})
}
