// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package subnet

import (
	"net"
	"net/netip"
)

// addresses converts what package net lists.
func addresses() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	var all []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			ip, _ := netip.AddrFromSlice(n.IP)
			bits, size := n.Mask.Size()
			if ip = ip.Unmap(); size == 0 { // 0 of 0: the mask is not a length
				bits = -1
			}
			all = append(all, netip.PrefixFrom(ip, bits-size+ip.BitLen()))
		}
	}
	return all, err
}
