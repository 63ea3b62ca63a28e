// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import "net/netip"

// The lookups of the three systems, for tests on any of them.
var (
	HostsLookup  = hostsLookup
	LibcLookup   = libcLookup
	DNSAPILookup = dnsapiLookup
	MaxLookups   = maxLookups
)

// Servers returns the host's servers as they are now.
func (s *System) Servers() []netip.Addr {
	list, _ := s.source.load()
	return list.servers
}
