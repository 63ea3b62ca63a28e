// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package hostswitch is the virtual network that a desktop host runs for its
// Linux guest: an Ethernet switch, and behind its gateway a network stack that
// serves DHCP, DNS, NAT and port forwards, all in this process and without
// privileges.
//
//	sw, err := hostswitch.New(hostswitch.Config{}) // the network that existing guests expect
//	if err != nil { … }
//	defer sw.Close()
//	err = sw.Serve(ctx, listener)                  // one connection per guest
//
// [New] makes a [Switch] and starts its services. [Switch.Attach] carries the
// frames of one guest; any number may be attached at once, and they reach each
// other. [Switch.Expose] makes a port of a guest reachable on the host,
// [Switch.DialContext] and [Switch.Listen] let this process take part itself.
// hostswitch/switchtest has an in-process guest for the tests of a program that
// uses a Switch.
//
// A [Host] does what is needed around a Switch for one VM: it finds it, shakes hands,
// and takes it back when it is lost. Programs to begin with are examples/quickstart,
// for a Switch and a guest in one process, and examples/hostswitch, for a VM.
//
// # Ownership
//
// A Switch owns every goroutine, socket and timer that it started; when
// [Switch.Close] returns, none is left and every host port is free. (On Windows
// and macOS a look-up that hangs in the operating system may stay until that lets
// it go; nobody waits for it.) Attach and
// Serve own the connection and listener they are given and close them.
//
// # Trust
//
// A guest is not trusted: see [Config] for what it may reach. No frame, DHCP or
// DNS message or HTTP request of one guest stops the Switch or another guest;
// whatever a guest can fill is bounded, and for most of it what one can fill is
// less than there is. A guest cannot take the address of another that is there. A
// later connection of the same guest, which is that of the same [Port.Name], takes
// its address along: that is how a guest comes back. To [Switch.Serve] all connections
// over unix sockets, the same or another, have one name, and so are one guest: for
// several call Attach, with a Port.Name for each.
//
// # Concurrency
//
// All methods may be called concurrently. After Close they return an error that
// Is [ErrClosed] and [net.ErrClosed]. Calls on connections and listeners that the
// Switch has made return one that Is [net.ErrClosed].
package hostswitch
