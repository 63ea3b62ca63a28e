// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package dhcpserver

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	offerTime   = 30 * time.Second // how long an offered address waits for its REQUEST
	declineTime = 10 * time.Minute // how long a declined address is set aside
	maxBindings = 4096             // beyond it the table forgets, and then refuses, as if the pool were exhausted
)

type hwAddr [6]byte

// client returns mac as the identity of a client. Only unicast Ethernet
// addresses are one.
func client(mac net.HardwareAddr) (hwAddr, bool) {
	if len(mac) != 6 || mac[0]&1 != 0 {
		return hwAddr{}, false
	}
	id := hwAddr(mac)
	return id, id != hwAddr{}
}

type state int

const (
	offered state = iota
	leased
	declined // nobody's: not in byMAC
)

// A binding is what is known about one address, and of all but declined ones
// also about one MAC. Where it is not live, it is a memory: a static one of its
// owner for ever, a dynamic one of who had the address last, until somebody else
// needs it.
type binding struct {
	addr     netip.Addr
	mac      hwAddr
	static   bool
	state    state
	expires  time.Time
	port     uint64
	absent   bool // port is gone: live, but to be had where no other is
	hostname string
}

func (b *binding) live(now time.Time) bool { return now.Before(b.expires) }

// current reports whether the address is somebody's.
func (b *binding) current(now time.Time) bool { return b.static || b.state == leased && b.live(now) }

func (b *binding) lease() Lease {
	l := Lease{Addr: b.addr, MAC: slices.Clone(b.mac[:]), Hostname: b.hostname, Static: b.static, Port: b.port}
	if b.state == leased {
		l.Expires = b.expires
	}
	return l
}

func (s *Server) add(b *binding) {
	s.byAddr[b.addr] = b
	s.byMAC[b.mac] = b
}

func (s *Server) drop(b *binding) {
	delete(s.byAddr, b.addr)
	if s.byMAC[b.mac] == b {
		delete(s.byMAC, b.mac)
	}
}

// bind returns the binding of mac, which may be a new one or a memory: the
// caller makes it live. exact asks for want or nothing; otherwise want is a
// wish, and may be the zero Addr. nil: there is no address for this client.
//
// Every address that a new binding gets is allocatable and nobody else's static
// one, nor a live one unless that is absent and no other is left. Taking over what
// came through another port counts like a new binding, so that MaxPerPort cannot
// be had several times over.
func (s *Server) bind(mac hwAddr, port uint64, want netip.Addr, exact bool, now time.Time) *binding {
	if b := s.byMAC[mac]; b != nil && (b.static || b.live(now) && b.port == port && !b.absent) {
		if exact && b.addr != want {
			return nil
		}
		return b
	}
	if s.sweep(port, now) >= s.cfg.MaxPerPort {
		s.stats.PortLimit++
		return nil
	}
	if b := s.byMAC[mac]; b != nil && (!exact || b.addr == want) {
		return b
	} else if b != nil {
		return nil
	}

	if !s.free(want, now) {
		if exact {
			return nil
		}
		want = s.lowest()
	}
	if old := s.byAddr[want]; old != nil {
		s.drop(old)
	} else if !want.IsValid() || len(s.byAddr) >= s.most {
		if old = s.oldest(now); old == nil {
			s.stats.Exhausted++
			return nil
		}
		s.drop(old)
		if !want.IsValid() {
			want = old.addr
		}
	}
	b := &binding{addr: want, mac: mac}
	s.add(b)
	return b
}

// sweep forgets offers and declined addresses whose time is over, which are no
// memory worth keeping, and counts what port holds.
func (s *Server) sweep(port uint64, now time.Time) (held int) {
	for _, b := range s.byAddr {
		switch {
		case b.static:
		case b.live(now):
			if b.port == port && !b.absent {
				held++
			}
		case b.state != leased:
			s.drop(b)
		}
	}
	return held
}

// free reports whether a client that has no binding may get a.
func (s *Server) free(a netip.Addr, now time.Time) bool {
	b := s.byAddr[a]
	return s.allocatable(a) && (b == nil || !b.static && !b.live(now))
}

// lowest returns the lowest address that nothing is known about, or the zero
// Addr. However large the subnet, it looks at no more addresses than the tables
// have entries, and one.
func (s *Server) lowest() netip.Addr {
	for a := s.cfg.Subnet.Addr().Next(); a != s.broadcast; a = a.Next() {
		if !s.fixed[a] && s.byAddr[a] == nil {
			return a
		}
	}
	return netip.Addr{}
}

// oldest returns the memory that is longest out of use, or else the absent
// binding that ends first, or nil.
func (s *Server) oldest(now time.Time) (old *binding) {
	for _, b := range s.byAddr {
		if !b.static && (b.absent || !b.live(now)) && (old == nil || b.expires.Before(old.expires)) {
			old = b
		}
	}
	return old
}
