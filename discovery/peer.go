// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"net"
)

// A Peer is a VM, or what stands for one, as its host sees it. Its methods may be
// called concurrently.
type Peer interface {
	// ID tells this peer from the others of its Source, and stays the same from
	// one listing to the next: a VM's GUID in lower case, a CID, a directory.
	ID() string

	// Dial connects to a port on which the peer listens. It ends when ctx does;
	// what is connected then no longer depends on ctx. The connection can be
	// half-closed (CloseWrite) where the transport can.
	Dial(ctx context.Context, port uint32) (net.Conn, error)

	// Listen accepts connections to a port of this host, from this peer only.
	// After Close, Accept returns an error that is net.ErrClosed.
	Listen(port uint32) (net.Listener, error)
}

// A Source lists the peers that there are now. None is not an error. Peers ends
// when ctx does, and may be called concurrently.
//
// An error does not end a search, unless it has a method Permanent() bool that
// returns true.
type Source interface {
	Peers(ctx context.Context) ([]Peer, error)
}

// SourceFunc is a function as a [Source].
type SourceFunc func(ctx context.Context) ([]Peer, error)

// Peers calls f.
func (f SourceFunc) Peers(ctx context.Context) ([]Peer, error) { return f(ctx) }
