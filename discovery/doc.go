// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package discovery lets the host and the guest agent of a VM find each other
// over vsock: the host looks for the VM in which the agent answers, and tells it
// when the host is ready for its data connection.
//
// The guest listens on [Protocol].HandshakePort and writes its signature to
// whoever connects and may ([Responder]). The host dials that port of every
// candidate ([Discoverer.Discover]), and a [Peer] that sends the signature is the
// one. The host then listens for that peer on the data port and connects again to
// say READY ([Discoverer.SignalReady]), upon which [Responder.WaitReady] returns
// and the guest dials the data port.
//
//	d := &discovery.Discoverer{Source: discovery.HyperV(), Protocol: discovery.RancherDesktop}
//	peer, err := d.Discover(ctx)
//	…
//	ln, err := peer.Listen(d.Protocol.DataPort)
//	…
//	err = d.SignalReady(ctx, peer)
//
// Candidates come from a [Source]: [HyperV] on Windows, [CIDs] on a Linux host of
// QEMU guests, [Unix] where the ports of a VM are unix sockets, or one of your
// own, which takes about ten lines.
//
// # Ownership
//
// Discover, SignalReady and WaitReady own every goroutine and connection that
// they start or open, and have ended them all when they return. They return at
// once when their context ends, provided that a Source and a Peer of your own
// honour the context that they are given.
//
// # Limits
//
// The signature is no secret and proves nothing: a guest is told from another by
// where the connection leads, which is what [Peer.Listen] and [Responder].Filter
// look at. At most 64 peers are probed, and 32 served, at a time.
//
// # Platforms
//
// HyperV and [HyperVPeer] work on Windows, CIDs and [CIDPeer] on Linux. Elsewhere
// they compile, and their use is an error that is [errors.ErrUnsupported].
package discovery
