// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ErrOverlap is wrapped by the error of a Pick that found no free candidate.
var ErrOverlap = errors.New("subnet: every candidate overlaps a network of this host")

// HostPrefixes returns the IPv4 networks that this host knows, sorted and without
// duplicates: those of its interfaces' addresses and the destinations of the routes
// in all its tables.
//
// Routes shorter than /8 are left out: they are default routes, whole (0.0.0.0/0)
// or in halves as VPNs write them, and would overlap everything. An address whose
// network is as short counts alone.
func HostPrefixes() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("subnet: addresses of this host: %w", err)
	}
	all, err := routes()
	if err != nil {
		return nil, fmt.Errorf("subnet: routes of this host: %w", err)
	}
	all = slices.DeleteFunc(all, func(p netip.Prefix) bool { return p.Bits() < minBits })
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if p, ok := prefix(n.IP, n.Mask); ok {
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all), nil
}

// prefix converts the address of an interface, if it is IPv4.
func prefix(ip net.IP, mask net.IPMask) (netip.Prefix, bool) {
	a, _ := netip.AddrFromSlice(ip)
	bits, size := mask.Size()
	if a = a.Unmap(); !a.Is4() || size == 0 {
		return netip.Prefix{}, false
	}
	if bits -= size - 32; bits < minBits {
		bits = 32
	}
	return netip.PrefixFrom(a, bits).Masked(), true
}

// Pick returns the first of the candidates that overlaps no [HostPrefixes]. Without
// candidates it tries [Default].
//
// If there is none the error Is [ErrOverlap] and says what each of them overlaps
// with. The zero Subnet among the candidates is an error too, and so is a host
// whose networks cannot be read.
func Pick(candidates ...Subnet) (Subnet, error) {
	if len(candidates) == 0 {
		candidates = []Subnet{Default}
	}
	for i, c := range candidates {
		if !c.Prefix.IsValid() {
			return Subnet{}, fmt.Errorf("%w: candidate %d has no prefix; make it with ValidateSubnet", ErrInvalid, i+1)
		}
	}
	host, err := HostPrefixes()
	if err != nil {
		return Subnet{}, err
	}
	var why []string
	for _, c := range candidates {
		over := c.Overlaps(host...)
		if len(over) == 0 {
			return c, nil
		}
		why = append(why, fmt.Sprintf("%v with %s", c, list(over)))
	}
	return Subnet{}, fmt.Errorf("%w: %s; choose another private network, or leave the VPN or LAN that has it",
		ErrOverlap, strings.Join(why, "; "))
}

// list names the prefixes that lie in no other of them: the addresses of a network
// add nothing to the network.
func list(all []netip.Prefix) string {
	var names []string
	for _, p := range all {
		if !slices.ContainsFunc(all, func(q netip.Prefix) bool { return q.Bits() < p.Bits() && q.Contains(p.Addr()) }) {
			names = append(names, p.String())
		}
	}
	return strings.Join(names, ", ")
}
