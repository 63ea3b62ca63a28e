// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"net/netip"
	"strconv"

	"github.com/miekg/dns"
)

// parseReverse returns the addresses that a name below in-addr.arpa or ip6.arpa
// stands for, and how many labels before those it has. The prefix is invalid,
// and its Bits -1, for all other names. The name is in lower case.
func parseReverse(name string) (p netip.Prefix, rest int) {
	labels := dns.SplitDomainName(name)
	n := len(labels) - 2
	if n < 0 || labels[n+1] != "arpa" {
		return netip.Prefix{}, 0
	}
	var v4 [4]byte
	var v6 [16]byte
	i := 0
	switch labels[n] {
	case "in-addr":
		for ; i < min(n, 4); i++ {
			octet, err := strconv.ParseUint(labels[n-1-i], 10, 8)
			if err != nil || strconv.FormatUint(octet, 10) != labels[n-1-i] {
				break
			}
			v4[i] = byte(octet)
		}
		return netip.PrefixFrom(netip.AddrFrom4(v4), 8*i), n - i
	case "ip6":
		for ; i < min(n, 32); i++ {
			nibble, err := strconv.ParseUint(labels[n-1-i], 16, 4)
			if err != nil || len(labels[n-1-i]) != 1 {
				break
			}
			v6[i/2] |= byte(nibble) << (4 * (1 - i%2))
		}
		return netip.PrefixFrom(netip.AddrFrom16(v6), 4*i), n - i
	}
	return netip.Prefix{}, 0
}
