// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package subnet checks, derives and picks the IPv4 network that a host and its
// guest VM share.
//
// [ValidateSubnet] turns text into a [Subnet], or says what to write instead.
// [Pick] takes the first of several that is in no network of this host, so that
// neither the LAN nor a VPN disappears behind the virtual network:
//
//	spare, err := subnet.ValidateSubnet("10.127.127.0/24")
//	…
//	s, err := subnet.Pick(subnet.Default, spare)
//
// # Platforms
//
// All of it runs everywhere, but [HostPrefixes], and with it [Pick], know the routes
// of Linux, Windows and macOS only. Elsewhere they return an error that wraps
// [errors.ErrUnsupported].
package subnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrInvalid is wrapped by every error about a text that is no Subnet.
var ErrInvalid = errors.New("subnet: invalid subnet")

// Default is 192.168.127.0/24, the network of guests and hosts that are in the
// field. It is to be read, not to be set.
var Default = derive(netip.MustParsePrefix("192.168.127.0/24"))

// private holds what a subnet may lie in: RFC 1918 section 3, and the shared
// address space of RFC 6598.
var private = [...]netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
}

const (
	minBits = 8
	maxBits = 29 // of 8 addresses 6 are usable; gateway, guest and host alias need 3
)

// Subnet is a network and the addresses in it that have a role. Make one with
// [ValidateSubnet]; the zero value is no network, see [Subnet.IsZero].
type Subnet struct {
	Prefix    netip.Prefix
	Gateway   netip.Addr // first usable address
	Guest     netip.Addr // second usable address
	HostAlias netip.Addr // last usable address; reaches the host's loopback
}

// ValidateSubnet parses an IPv4 network in CIDR notation. It must be canonical (no
// host bits), of length /8 to /29, and lie entirely in 10.0.0.0/8, 172.16.0.0/12,
// 192.168.0.0/16 (RFC 1918) or 100.64.0.0/10 (RFC 6598).
//
// The error Is [ErrInvalid] and names a network to write instead, which is valid.
func ValidateSubnet(cidr string) (Subnet, error) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		if a, err := netip.ParseAddr(strings.TrimSpace(cidr)); err == nil && a.Is4() {
			return invalid(cidr, "the length is missing", suggest(netip.PrefixFrom(a, 24)))
		}
		return invalid(cidr, "it is not an address, a slash and a length", Default.Prefix)
	}
	if !p.Addr().Is4() {
		return invalid(cidr, "it is not IPv4", Default.Prefix)
	}
	switch instead := suggest(p); {
	case p.Bits() > maxBits:
		return invalid(cidr, "it is too small, /29 or shorter is needed", instead)
	case p.Bits() < minBits:
		return invalid(cidr, "it is too large, /8 or longer is needed", instead)
	case p.Masked() == instead && p != instead:
		return invalid(cidr, "it has bits set behind its length", instead)
	case p != instead:
		return invalid(cidr, "it is not entirely within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918) or 100.64.0.0/10 (RFC 6598)", instead)
	}
	return derive(p), nil
}

func invalid(cidr, why string, instead netip.Prefix) (Subnet, error) {
	return Subnet{}, fmt.Errorf("%w %q: %s; write %v", ErrInvalid, cidr, why, instead)
}

// suggest returns the valid prefix that is nearest to p, which is p if it is valid.
func suggest(p netip.Prefix) netip.Prefix {
	p = netip.PrefixFrom(p.Addr(), max(minBits, min(p.Bits(), maxBits)))
	for _, block := range private {
		if block.Contains(p.Addr()) {
			return netip.PrefixFrom(p.Addr(), max(p.Bits(), block.Bits())).Masked()
		}
	}
	for _, block := range private {
		if p.Overlaps(block) {
			return block
		}
	}
	return Default.Prefix
}

func derive(p netip.Prefix) Subnet {
	first := p.Addr().As4()
	n := binary.BigEndian.Uint32(first[:])
	at := func(i uint32) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], n+i)
		return netip.AddrFrom4(b)
	}
	return Subnet{Prefix: p, Gateway: at(1), Guest: at(2), HostAlias: at(1<<(32-p.Bits()) - 2)}
}

// IsZero reports whether s is the zero Subnet.
func (s Subnet) IsZero() bool { return s == Subnet{} }

// String returns the network in CIDR notation, and "" for the zero Subnet.
func (s Subnet) String() string {
	if s.IsZero() {
		return ""
	}
	return s.Prefix.String()
}

// MarshalText returns what String does, so that a Subnet can stand in a
// configuration file and behind a flag.
func (s Subnet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is [ValidateSubnet]; the empty text gives the zero Subnet.
func (s *Subnet) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*s = Subnet{}
		return nil
	}
	v, err := ValidateSubnet(string(text))
	if err == nil {
		*s = v
	}
	return err
}

// Overlaps returns those of p that have an address in common with s, in the given
// order. The zero Subnet and IPv6 prefixes overlap nothing; an IPv4-mapped IPv6
// prefix counts as the IPv4 prefix that it maps.
func (s Subnet) Overlaps(p ...netip.Prefix) []netip.Prefix {
	var over []netip.Prefix
	for _, q := range p {
		if s.Prefix.Overlaps(unmap(q)) {
			over = append(over, q)
		}
	}
	return over
}

func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
