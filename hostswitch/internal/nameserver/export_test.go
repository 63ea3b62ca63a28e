// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

// The lookups of the three systems, for tests on any of them.
var (
	HostsLookup  = hostsLookup
	LibcLookup   = libcLookup
	DNSAPILookup = dnsapiLookup
	MaxLookups   = maxLookups
)
