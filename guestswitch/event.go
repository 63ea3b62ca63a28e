// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"log/slog"
	"net/netip"
	"time"
)

// Event is something that happened to a running [Guest].
type Event struct {
	Kind  EventKind
	Lease Lease // of Configured, Leased, Renewed and LeaseLost
	Err   error // of Failed, LeaseLost and Lost
}

// EventKind says what happened.
type EventKind int

// What happens to a running Guest.
const (
	Connected  EventKind = iota + 1 // the host was dialled and the interface is up
	Heard                           // the first valid frame came from the host
	Leased                          // a DHCP server granted a lease
	Configured                      // the interface has its address, or there is none to give
	Renewed                         // the lease was extended
	LeaseLost                       // the lease ran out or was taken back: the address is gone
	Failed                          // no lease yet, or a script or client failed: it is tried again
	Exited                          // the client of ExecDHCP ended by itself and without an error
	Lost                            // the run ends, and nobody asked for it
)

// String returns the name of the kind.
func (k EventKind) String() string {
	names := [...]string{"Connected", "Heard", "Leased", "Configured", "Renewed", "LeaseLost", "Failed", "Exited", "Lost"}
	if k < 1 || int(k) > len(names) {
		return "EventKind(?)"
	}
	return names[k-1]
}

// LogValue implements [slog.LogValuer].
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("kind", e.Kind.String())}
	if e.Lease.Addr.IsValid() {
		attrs = append(attrs, slog.Any("lease", e.Lease))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	return slog.GroupValue(attrs...)
}

// Lease is what configures an interface, whether a server or [StaticDHCP] gave
// it. What was not given is zero.
type Lease struct {
	Addr     netip.Prefix  // the interface's address, and the length of its network's prefix
	Router   netip.Addr    // of the default route
	DNS      []netip.Addr  // name servers
	Domain   string        // RFC 2132, option 15
	Search   []string      // RFC 3397
	MTU      int           // in bytes
	Server   netip.Addr    // that granted it
	Duration time.Duration // from the grant on; 0: for ever
}
