// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package dhcpserver is the DHCP service (RFC 2131) of a virtual network, as a
// function from message to message.
//
// The switch takes the UDP payloads that guests send to port 67 off its ports
// and hands them to [Server.Handle], which returns the payload to send back, and
// where to. There is no socket, goroutine or timer in here; leases end when the
// clock of the Config says so.
//
// # The one server
//
// The server takes itself for the only one of its network. So it does not stay
// silent where RFC 2131, section 4.3.2, asks a server without a record of the
// client to, for the sake of other servers: a client that asks for its old
// address, renews or rebinds is given it if it is free, and a NAK if not. That
// is how guests keep their addresses when the host program restarts, which
// loses the leases.
//
// # Trust
//
// Messages come from guests, which are not trusted. A client is its hardware
// address, which must be that of the frame; the client identifier (61) is
// echoed (RFC 6842) and otherwise ignored. Anything not well-formed is ignored,
// as are relayed messages, for there are no relays. What one port can hold is
// bounded, and so is everything that is remembered. A guest that forges the
// hardware address of another gets that one's address, which only the switch
// can prevent.
package dhcpserver

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A Server holds the leases of one network. All methods may be called
// concurrently.
type Server struct {
	cfg       Config
	broadcast netip.Addr
	fixed     map[netip.Addr]bool // never handed out; not changed after New
	most      int                 // bindings to keep

	mu     sync.RWMutex
	byAddr map[netip.Addr]*binding
	byMAC  map[hwAddr]*binding
	stats  Stats
}

// A Lease is an address that is somebody's.
type Lease struct {
	Addr     netip.Addr
	MAC      net.HardwareAddr
	Hostname string    // as the guest calls itself; "" where that is no valid name
	Static   bool      // from Config.Static
	Expires  time.Time // zero: a static one that is not taken
	Port     uint64    // through which it was last requested
}

// Stats counts messages that got no answer, or a NAK, and no address.
type Stats struct {
	Exhausted uint64 // no address was left
	PortLimit uint64 // the port holds MaxPerPort of them
	Malformed uint64 // not a message of a DHCP client on this network
}

// A Reply is a message to send from the gateway, port 67.
type Reply struct {
	Payload []byte           // of the UDP datagram
	DstMAC  net.HardwareAddr // the client's, or broadcast
	Dst     netip.AddrPort   // what the client has, is to have, or broadcast; port 68
	Lease   *Lease           // set when Payload is the ACK that grants or extends it
	Renewed bool             // the client had Lease just now through the same port: no news but its Expires and Hostname
	Nak     bool
}

// Leases returns the static leases, taken or not, and the dynamic ones that have
// not expired, sorted by address. Those of a detached port are among them until
// somebody else is given the address.
func (s *Server) Leases() []Lease {
	now := s.cfg.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	var leases []Lease
	for _, b := range s.byAddr {
		if b.current(now) {
			leases = append(leases, b.lease())
		}
	}
	slices.SortFunc(leases, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return leases
}

// Lookup returns the lease of mac: false if Leases has none.
func (s *Server) Lookup(mac net.HardwareAddr) (Lease, bool) {
	id, ok := client(mac)
	now := s.cfg.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.byMAC[id]
	if !ok || b == nil || !b.current(now) {
		return Lease{}, false
	}
	return b.lease(), true
}

// Owner returns the MAC whose static or unexpired lease addr is: false if it is
// nobody's, as with a mere offer. It is cheap enough to be called for each frame,
// for which the caller brings the time of Config.Now.
func (s *Server) Owner(addr netip.Addr, now time.Time) (mac [6]byte, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.byAddr[addr]
	if b == nil || !b.current(now) {
		return mac, false
	}
	return b.mac, true
}

// Detach says that port is gone. Its clients keep their dynamic leases until they
// expire, and find them again through another port; but they no longer count for
// MaxPerPort, and where no other address is left they are given away, as are the
// addresses that the port declined. Static leases stay as they are.
func (s *Server) Detach(port uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.byAddr {
		switch {
		case b.port != port || b.static:
		case b.state == offered:
			s.drop(b)
		default:
			b.absent = true
		}
	}
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.stats
}

// Handle answers one message: the UDP payload of a frame that came in through
// port with the source address src. It returns false when no answer is due. The
// payload is not kept.
//
// MaxPerPort counts by port, until [Server.Detach]. A lease does not depend on
// it, but only its port can release or decline it.
func (s *Server) Handle(port uint64, src net.HardwareAddr, payload []byte) (Reply, bool) {
	r, ok := parse(src, payload)
	now := s.cfg.Now()
	s.mu.Lock()
	kind, lease, renewed := dhcpv4.MessageTypeNone, (*Lease)(nil), false
	if ok {
		b := s.byMAC[r.mac]
		renewed = b != nil && b.state == leased && b.heldBy(port, r.wanted, now)
		kind, lease = s.apply(r, port, now)
	} else {
		s.stats.Malformed++
	}
	s.mu.Unlock()
	if kind == dhcpv4.MessageTypeNone {
		return Reply{}, false
	}
	out := s.reply(r, kind, lease)
	out.Renewed = renewed && out.Lease != nil
	return out, true
}

// apply does what the message asks for and returns the type of the answer, with
// the lease that it speaks of. It is called with the lock held.
func (s *Server) apply(r request, port uint64, now time.Time) (dhcpv4.MessageType, *Lease) {
	foreign := r.server.IsValid() && r.server != s.cfg.Gateway
	b := s.byMAC[r.mac]
	switch r.kind {
	case dhcpv4.MessageTypeDiscover:
		if b = s.bind(r.mac, port, r.wanted, false, now); b == nil {
			return dhcpv4.MessageTypeNone, nil
		}
		if !b.static && (b.state == offered || !b.live(now)) {
			b.state, b.expires, b.port, b.absent = offered, now.Add(offerTime), port, false
		}
		lease := b.lease()
		return dhcpv4.MessageTypeOffer, &lease

	case dhcpv4.MessageTypeRequest:
		if foreign { // it chose another server's offer
			if b != nil && !b.static && b.state == offered {
				s.drop(b)
			}
			return dhcpv4.MessageTypeNone, nil
		}
		if b = s.bind(r.mac, port, r.wanted, true, now); b == nil {
			return dhcpv4.MessageTypeNak, nil
		}
		b.state, b.expires, b.port, b.absent = leased, now.Add(s.cfg.LeaseTime), port, false
		if r.hostname != "" {
			b.hostname = r.hostname
		}
		lease := b.lease()
		return dhcpv4.MessageTypeAck, &lease

	case dhcpv4.MessageTypeInform:
		if s.isHost(r.ciaddr) && r.ciaddr != s.cfg.Gateway {
			return dhcpv4.MessageTypeAck, nil
		}

	case dhcpv4.MessageTypeRelease:
		if !foreign && b.heldBy(port, r.ciaddr, now) {
			b.expires = now
			if b.static {
				b.expires = time.Time{}
			}
		}

	case dhcpv4.MessageTypeDecline:
		// Set aside, and counted as the port's, so that declining does not
		// use up the pool. A static address stays its owner's.
		if !foreign && b.heldBy(port, r.wanted, now) && !b.static {
			delete(s.byMAC, r.mac)
			b.state, b.expires = declined, now.Add(declineTime)
		}
	}
	return dhcpv4.MessageTypeNone, nil
}

func (b *binding) heldBy(port uint64, addr netip.Addr, now time.Time) bool {
	return b != nil && b.live(now) && !b.absent && b.port == port && b.addr == addr
}
