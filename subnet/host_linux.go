// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"encoding/binary"
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
		dst, err := destination(m.Data[syscall.SizeofRtMsg:])
		if err != nil {
			return nil, err
		}
		p, err := dst.Prefix(int(m.Data[1]))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// destination finds RTA_DST among the attributes of a route; a default route has
// none. syscall.ParseNetlinkRouteAttr would panic on a last one without padding.
func destination(attrs []byte) (netip.Addr, error) {
	for len(attrs) >= syscall.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(attrs))
		if n < syscall.SizeofRtAttr || n > len(attrs) {
			return netip.Addr{}, errShort
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == syscall.RTA_DST {
			if n != syscall.SizeofRtAttr+4 {
				return netip.Addr{}, errShort
			}
			return netip.AddrFrom4([4]byte(attrs[syscall.SizeofRtAttr:n])), nil
		}
		attrs = attrs[min((n+3)&^3, len(attrs)):]
	}
	return netip.IPv4Unspecified(), nil
}
