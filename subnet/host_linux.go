// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"errors"
	"net/netip"
	"syscall"
)

// routes asks the kernel for the IPv4 routes of all tables, see rtnetlink(7).
func routes() ([]netip.Prefix, error) {
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_INET)
	if err != nil {
		return nil, err
	}
	return decodeRoutes(rib)
}

var errShort = errors.New("the kernel's answer is cut short")

func decodeRoutes(rib []byte) ([]netip.Prefix, error) {
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWROUTE {
			continue
		}
		// struct rtmsg: family, length of destination, …
		if len(m.Data) < syscall.SizeofRtMsg {
			return nil, errShort
		}
		if m.Data[0] != syscall.AF_INET {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, err
		}
		dst := netip.IPv4Unspecified() // a default route has no destination
		for _, a := range attrs {
			if a.Attr.Type == syscall.RTA_DST {
				if len(a.Value) != 4 {
					return nil, errShort
				}
				dst = netip.AddrFrom4([4]byte(a.Value))
			}
		}
		p, err := dst.Prefix(int(m.Data[1]))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
