// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
)

// A guest listens, the host exposes its port and connects to it.
func Example() {
	ctx := context.Background()
	sw, err := hostswitch.New(hostswitch.Config{})
	if err != nil {
		panic(err)
	}
	defer sw.Close()

	// In a daemon a real guest connects instead: sw.Serve(ctx, listener).
	guest, err := switchtest.Attach(sw, switchtest.Config{})
	if err != nil {
		panic(err)
	}
	defer guest.Close()
	lease, err := guest.DHCP(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println("the guest has", lease.Addr)

	ln, err := guest.Listen("tcp", ":80")
	if err != nil {
		panic(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if c, err := ln.Accept(); err == nil {
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()

	f, err := sw.Expose(ctx, hostswitch.Forward{Local: "127.0.0.1:0", Remote: "192.168.127.2:80"})
	if err != nil {
		panic(err)
	}
	conn, err := net.Dial("tcp", f.Local)
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	fmt.Printf("the host reads %q %v\n", text, err)
	<-served
	// Output:
	// the guest has 192.168.127.2/24
	// the host reads "hello" <nil>
}

// Guests that ask for more than their own ports are told no.
func ExampleConfig_allowExpose() {
	sw, err := hostswitch.New(hostswitch.Config{
		AllowExpose: func(_ context.Context, f *hostswitch.Forward) error {
			_, port, err := net.SplitHostPort(f.Local)
			if err != nil {
				return err
			}
			f.Local = net.JoinHostPort("127.0.0.1", port) // never to the LAN
			return nil
		},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(sw.Close())
	// Output: <nil>
}
