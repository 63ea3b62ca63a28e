// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"net"
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
		// A cloned route is the cache of one peer, reached through another route.
		if r, ok := m.(*route.RouteMessage); ok && r.Flags&syscall.RTF_WASCLONED == 0 {
			if p, ok := destination(r); ok {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

func destination(r *route.RouteMessage) (netip.Prefix, bool) {
	if len(r.Addrs) <= syscall.RTAX_NETMASK {
		return netip.Prefix{}, false
	}
	dst, ok := r.Addrs[syscall.RTAX_DST].(*route.Inet4Addr)
	if !ok {
		return netip.Prefix{}, false
	}
	bits := 32 // a host route has no mask
	if mask, ok := r.Addrs[syscall.RTAX_NETMASK].(*route.Inet4Addr); ok {
		bits, _ = net.IPMask(mask.IP[:]).Size()
	} else if dst.IP == [4]byte{} {
		bits = 0
	}
	return netip.PrefixFrom(netip.AddrFrom4(dst.IP), bits).Masked(), true
}
