// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// addresses reads the table of IPv4 addresses, see GetUnicastIpAddressTable. What
// package net calls to list interfaces, wine does not do.
func addresses() ([]netip.Prefix, error) {
	var table *windows.MibUnicastIpAddressTable
	if err := windows.GetUnicastIpAddressTable(windows.AF_INET, &table); err != nil {
		return nil, os.NewSyscallError("GetUnicastIpAddressTable", err)
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	var all []netip.Prefix
	rows := unsafe.Slice(&table.Table[0], table.NumEntries)
	for i := range rows {
		all = append(all, netip.PrefixFrom(address(unsafe.Pointer(&rows[i].Address)), int(rows[i].OnLinkPrefixLength)))
	}
	return all, nil
}

// routes reads the IPv4 forwarding table, see GetIpForwardTable2.
func routes() ([]netip.Prefix, error) {
	var table *windows.MibIpForwardTable2
	if err := windows.GetIpForwardTable2(windows.AF_INET, &table); err != nil {
		return nil, os.NewSyscallError("GetIpForwardTable2", err)
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	var all []netip.Prefix
	rows := table.Rows()
	for i := range rows {
		dst := &rows[i].DestinationPrefix
		all = append(all, netip.PrefixFrom(address(unsafe.Pointer(&dst.Prefix)), int(dst.PrefixLength)))
	}
	return all, nil
}

// address reads a SOCKADDR_INET. Anything but IPv4 gives the zero Addr.
func address(p unsafe.Pointer) netip.Addr {
	if in := (*windows.RawSockaddrInet4)(p); in.Family == windows.AF_INET {
		return netip.AddrFrom4(in.Addr)
	}
	return netip.Addr{}
}
