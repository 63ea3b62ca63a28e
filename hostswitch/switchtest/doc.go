// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package switchtest is an in-process guest for tests of what runs on a
// [hostswitch.Switch], as net/http/httptest is for HTTP: a network stack of its
// own, no virtual machine, no root, any operating system.
//
//	guest, err := switchtest.Attach(sw, switchtest.Config{})
//	if err != nil { … }
//	defer guest.Close()
//	lease, err := guest.DHCP(ctx)
//	conn, err := guest.DialContext(ctx, "tcp", "host.docker.internal:8080")
//
// [Attach] plugs a guest into a Switch in this process; [NewGuest] takes any
// connection that carries frames in the plain format, as a socket that another
// process listens on. [Guest.SendFrame] and Config.Frames are for tests of bad
// manners: what is sent need not be a frame that any stack would send.
//
// # Ownership
//
// A Guest owns its connection and its goroutines. All have ended when
// [Guest.Close] returns, and also when the channel of [Guest.Done] is closed,
// which it is when the other side ends the connection.
//
// # Limits
//
// The guest speaks IPv4. Its stack parks goroutines in a way that
// testing/synctest does not know, so it does not work inside a bubble. Leases
// are not renewed by themselves.
package switchtest
