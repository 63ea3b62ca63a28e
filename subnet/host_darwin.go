// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"net/netip"
	"syscall"

	"golang.org/x/net/route"
)

// routes reads the IPv4 routing table, see route(4).
func routes() ([]netip.Prefix, error) {
	rib, err := route.FetchRIB(syscall.AF_INET, route.RIBTypeRoute, 0)
	if err != nil {
		return nil, err
	}
	messages, err := route.ParseRIB(route.RIBTypeRoute, rib)
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	for _, m := range messages {
		r, ok := m.(*route.RouteMessage)
		// A cloned route is the cache of one peer, reached through another route.
		if !ok || r.Flags&syscall.RTF_WASCLONED != 0 || len(r.Addrs) <= syscall.RTAX_NETMASK {
			continue
		}
		if dst, ok := r.Addrs[syscall.RTAX_DST].(*route.Inet4Addr); ok {
			var mask []byte
			if m, ok := r.Addrs[syscall.RTAX_NETMASK].(*route.Inet4Addr); ok {
				mask = m.IP[:]
			}
			all = append(all, bsdRoute(dst.IP, mask, r.Flags&syscall.RTF_HOST != 0))
		}
	}
	return all, nil
}
