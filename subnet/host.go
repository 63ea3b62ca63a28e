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
	"syscall"
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
func HostPrefixes() ([]netip.Prefix, error) { return hostPrefixes(addresses, routes) }

// noRows is Windows' ERROR_NOT_FOUND (winerror.h), with which its calls fail for a
// table that is empty.
const noRows = syscall.Errno(1168)

func hostPrefixes(addresses, routes func() ([]netip.Prefix, error)) ([]netip.Prefix, error) {
	addrs, err := addresses()
	if err != nil && !errors.Is(err, noRows) {
		return nil, fmt.Errorf("subnet: addresses of this host: %w", err)
	}
	dsts, err := routes()
	if err != nil && !errors.Is(err, noRows) {
		return nil, fmt.Errorf("subnet: routes of this host: %w", err)
	}
	return networks(addrs, dsts), nil
}

// networks decides what counts of the addresses and destinations that a system
// lists. A length that makes no sense is -1, as [netip.PrefixFrom] has it.
func networks(addrs, dsts []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range addrs {
		if p = unmap(p); p.Bits() < minBits {
			p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		}
		all = append(all, p.Masked())
	}
	for _, p := range dsts {
		if p.Bits() >= minBits {
			all = append(all, p.Masked())
		}
	}
	all = slices.DeleteFunc(all, func(p netip.Prefix) bool { return !p.Addr().Is4() })
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// bsdRoute is the destination of a message of route(4): a mask may be absent, for
// a host, a default route, and a network of a class.
func bsdRoute(dst [4]byte, mask []byte, host bool) netip.Prefix {
	bits := 32
	switch {
	case host:
	case len(mask) == 4:
		ones, size := net.IPMask(mask).Size()
		bits = ones - 32 + size // below 0 if it is not a length
	case dst == [4]byte{}:
		bits = 0
	default:
		bits, _ = net.IP(dst[:]).DefaultMask().Size()
	}
	return netip.PrefixFrom(netip.AddrFrom4(dst), bits)
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
