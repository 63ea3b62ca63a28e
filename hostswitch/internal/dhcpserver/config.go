// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package dhcpserver

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"
)

// Config says what a [Server] gives to whom. It is read once, by [New].
type Config struct {
	Subnet  netip.Prefix // IPv4, /8 to /29
	Gateway netip.Addr   // inside Subnet; also the server identifier, router and DNS server of every reply

	MTU int // interface MTU of the guests, in bytes; 0: 1500

	// Static holds addresses for their MACs: the owner always gets its own,
	// nobody else ever does.
	Static map[netip.Addr]net.HardwareAddr

	// Reserved addresses are never handed out. Those outside Subnet are
	// allowed and mean nothing.
	Reserved []netip.Addr

	// Search returns the search list of the moment: its first name becomes
	// the domain name (15), as many as fit the search list (119). Names that
	// are none in DNS are left out. It is called for each reply, from Handle
	// and without a lock held. nil: no names.
	Search func() []string

	LeaseTime time.Duration // 0: one hour; at least 2 s

	// MaxPerPort bounds the addresses that one port holds at once, until it is
	// detached, as dynamic leases, offers and declined addresses. 0: 64, or half of the pool where
	// that is less, so that no single guest can take it all.
	MaxPerPort int

	Now func() time.Time // nil: time.Now
}

const (
	defaultMTU        = 1500
	defaultLeaseTime  = time.Hour
	defaultMaxPerPort = 64
)

// New returns a server for cfg. Its errors name the field that is wrong.
func New(cfg Config) (*Server, error) {
	s := &Server{
		cfg:    cfg,
		fixed:  map[netip.Addr]bool{},
		byAddr: map[netip.Addr]*binding{},
		byMAC:  map[hwAddr]*binding{},
		most:   maxBindings + len(cfg.Static),
	}
	if p := cfg.Subnet; !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 || p != p.Masked() {
		return nil, fmt.Errorf("dhcpserver: Subnet: %v is not an IPv4 network from /8 to /29, such as 192.168.127.0/24", p)
	}
	s.broadcast = lastAddr(cfg.Subnet)
	if !s.isHost(cfg.Gateway) {
		return nil, fmt.Errorf("dhcpserver: Gateway: %v is not a host address of %v", cfg.Gateway, cfg.Subnet)
	}
	s.fixed[cfg.Gateway] = true
	for _, a := range cfg.Reserved {
		if !a.Is4() {
			return nil, fmt.Errorf("dhcpserver: Reserved: %v is not an IPv4 address", a)
		}
		s.fixed[a] = true
	}

	if s.cfg.MTU == 0 {
		s.cfg.MTU = defaultMTU
	}
	if s.cfg.MTU < 576 || s.cfg.MTU > math.MaxUint16 { // RFC 791: what every host must take
		return nil, fmt.Errorf("dhcpserver: MTU: %d is not from 576 to 65535", cfg.MTU)
	}
	if s.cfg.LeaseTime == 0 {
		s.cfg.LeaseTime = defaultLeaseTime
	}
	if s.cfg.LeaseTime < 2*time.Second || s.cfg.LeaseTime >= math.MaxUint32*time.Second {
		return nil, fmt.Errorf("dhcpserver: LeaseTime: %v is not from 2s to less than 136 years", cfg.LeaseTime)
	}
	if s.cfg.Now == nil {
		s.cfg.Now = time.Now
	}
	if s.cfg.Search == nil {
		s.cfg.Search = func() []string { return nil }
	}

	for addr, mac := range cfg.Static {
		id, ok := client(mac)
		switch {
		case !s.allocatable(addr):
			return nil, fmt.Errorf("dhcpserver: Static: %v is not a host address of %v, or it is reserved", addr, cfg.Subnet)
		case !ok:
			return nil, fmt.Errorf("dhcpserver: Static: %v: %q is not a unicast Ethernet address", addr, mac)
		case s.byMAC[id] != nil:
			return nil, fmt.Errorf("dhcpserver: Static: %v has two addresses, %v and %v", mac, s.byMAC[id].addr, addr)
		}
		s.add(&binding{addr: addr, mac: id, static: true})
	}

	switch {
	case cfg.MaxPerPort < 0:
		return nil, fmt.Errorf("dhcpserver: MaxPerPort: %d is negative", cfg.MaxPerPort)
	case cfg.MaxPerPort == 0:
		pool := 1<<(32-cfg.Subnet.Bits()) - 2 - len(cfg.Static)
		for a := range s.fixed {
			if s.isHost(a) {
				pool--
			}
		}
		s.cfg.MaxPerPort = min(defaultMaxPerPort, max(1, pool/2))
	}
	return s, nil
}

func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// isHost reports whether a is neither outside the subnet nor its network or
// broadcast address.
func (s *Server) isHost(a netip.Addr) bool {
	return s.cfg.Subnet.Contains(a) && a != s.cfg.Subnet.Addr() && a != s.broadcast
}

// allocatable reports whether a may be anybody's address at all.
func (s *Server) allocatable(a netip.Addr) bool { return s.isHost(a) && !s.fixed[a] }
