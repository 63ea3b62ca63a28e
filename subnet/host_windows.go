// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/windows"
)

// routes reads the IPv4 forwarding table, see GetIpForwardTable2.
func routes() ([]netip.Prefix, error) {
	var table *windows.MibIpForwardTable2
	if err := windows.GetIpForwardTable2(windows.AF_INET, &table); err != nil {
		return nil, err
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	var all []netip.Prefix
	for _, row := range table.Rows() {
		dst := row.DestinationPrefix
		if dst.Prefix.Family != windows.AF_INET {
			continue
		}
		addr := (*windows.RawSockaddrInet4)(unsafe.Pointer(&dst.Prefix)).Addr
		p, err := netip.AddrFrom4(addr).Prefix(int(dst.PrefixLength))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
