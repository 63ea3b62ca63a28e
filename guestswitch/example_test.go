// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"context"
	"fmt"
	"net"

	"github.com/rancher-sandbox/guestnet/guestswitch"
)

// A guest whose eth0 is in the network of the host that listens on a unix socket.
// It needs root, so it is only compiled.
func ExampleGuest() {
	g := &guestswitch.Guest{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", "/run/host.sock")
		},
		ResolvConf: "/etc/resolv.conf",
		OnEvent: func(e guestswitch.Event) {
			if e.Kind == guestswitch.Configured {
				fmt.Println("eth0 has", e.Lease.Addr)
			}
		},
	}
	if err := g.Run(context.Background()); err != nil {
		fmt.Println(err) // the host went away, for instance: run it again
	}
}
