// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// TestPipeIsAsGoodAsAConnection: what is on both sides of a pipe behaves towards each
// other as the two ends of one net.Conn do.
func TestPipeIsAsGoodAsAConnection(t *testing.T) {
	for _, route := range append(routes, [2]string{"memory", "memory"}, [2]string{"unix", "memory"}, [2]string{"memory", "tcp"}) {
		t.Run(route[0]+"-"+route[1], func(t *testing.T) {
			join(t, route[0], route[1]).cancel(nil) // to be skipped here: below, t would be the wrong one
			conform(t, func() *joint { return join(t, route[0], route[1]) })
		})
	}
}

func conform(t *testing.T, join func() *joint) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		j := join()
		return j.client.(net.Conn), j.server.(net.Conn), func() {
			_, _ = j.client.Close(), j.server.Close() // which a test may have done
			<-j.done
		}, nil
	})
}
