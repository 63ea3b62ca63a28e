// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
	"github.com/rancher-sandbox/guestnet/subnet"
)

// What existing guests expect (PROTOCOL, "Virtual network").
const (
	defaultMTU        = 1500
	defaultGatewayMAC = "5a:94:ef:e4:0c:dd"
	defaultGuestMAC   = "5a:94:ef:e4:0c:ee"
)

// MTUs that the plain frame format and IPv4 allow (RFC 791: 576).
const (
	minMTU = 576
	maxMTU = frame.MaxLen - packet.EthernetLen
)

// Config says what a virtual network is. The zero Config is the network that
// existing guests of Rancher Desktop expect. It is read once, by [New]; a nil
// map or slice means the default, an empty one none.
//
// A guest reaches, of the host's world, what DialOutbound lets it reach, but
// never (before NAT) 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, multicast,
// 240.0.0.0/4, nor an address of its own subnet that is not in NAT.
type Config struct {
	// Subnet of the network; its gateway is the Switch. Zero: [subnet.Default],
	// 192.168.127.0/24.
	Subnet subnet.Subnet
	// MTU that guests are told, in bytes, 576 to 65521. 0: 1500. Existing guests
	// read at most 3986.
	MTU int
	// GatewayMAC is the gateway's Ethernet address. nil: 5a:94:ef:e4:0c:dd.
	GatewayMAC net.HardwareAddr
	// Leases reserves addresses. nil: Subnet.Guest for 5a:94:ef:e4:0c:ee. Other
	// guests get a free address.
	Leases map[netip.Addr]net.HardwareAddr
	// Zones are answered by the gateway's DNS, other names by Resolver. nil:
	// rancher-desktop.internal and docker.internal, each with gateway and host.
	Zones []Zone
	// SearchDomains for guests. nil: the host's, as they are when a guest asks
	// for a lease.
	SearchDomains []string
	// Resolver for names outside Zones. nil: the host's, re-read when it
	// changes.
	Resolver Resolver
	// NAT maps destinations of guests to what is dialled instead; keys inside
	// Subnet are answered by the gateway's MAC. nil: Subnet.HostAlias to
	// 127.0.0.1, the host's loopback.
	NAT map[netip.Addr]netip.Addr
	// Forwards are exposed by New, which fails if one of them can not be.
	Forwards []Forward
	// DialOutbound opens the host's end of a guest's connection; network is
	// "tcp" or "udp", address an IP and a port after NAT. It is called
	// concurrently, and must return when its context ends, as Close waits for
	// it. An error refuses the connection; one that is a timeout leaves it
	// unanswered. A TCP connection should have CloseWrite: without it, it is
	// closed soon after the guest has half-closed. nil: a [net.Dialer].
	DialOutbound func(ctx context.Context, network, address string) (net.Conn, error)
	// AllowExpose is asked for each forward that a guest requests, and may
	// change it; Remote names the guest by then. An error refuses it. nil:
	// whatever a guest may ask for (tcp and udp, to itself or another guest) is
	// allowed. It must return when its context ends, and must not call Close.
	AllowExpose func(ctx context.Context, f *Forward) error
	// OnEvent is told what happens, one event at a time, from a goroutine of the
	// Switch, and of Forwards before New has returned. It must not call Close. Events
	// that it is too slow for are dropped, oldest first.
	OnEvent func(Event)
	// Logger takes what a person debugging the network wants to know. nil:
	// silent. It is no packet log: see [Switch.Capture].
	Logger *slog.Logger
}

// A Zone is a DNS zone that the gateway answers itself.
type Zone struct {
	// Name is "docker.internal."; the dot at the end may be left out. "." stands for
	// all names that no other zone has, but for addresses (A and AAAA) only: other
	// questions are for the Resolver.
	Name    string
	Records []Record // the first that matches answers
	// DefaultIP answers for names without a Record. Zero: they do not exist.
	DefaultIP netip.Addr
}

// A Record is an A record, whose name is relative to its zone.
type Record struct {
	Name   string
	Regexp *regexp.Regexp // matches the relative name, if Name is empty
	IP     netip.Addr
}

// A Resolver answers whole DNS messages (RFC 1035, wire format), whatever their
// type. network, "udp" or "tcp", is how the guest asked. The answer has the ID and
// the question of the query. It is called concurrently, and must return when ctx
// ends, as Close waits for it; an error makes SERVFAIL.
type Resolver interface {
	Resolve(ctx context.Context, network string, query []byte) ([]byte, error)
}

// Framing is how frames stand on a guest's connection.
type Framing int

const (
	// FramingAuto is the plain format, or for a guest that offers it, the offload
	// format: TCP in super-frames (docs/PROTOCOL.md, "Offload extension").
	FramingAuto Framing = iota
	// FramingPlain is always the plain format: length, 16 bits, little-endian,
	// and the frame.
	FramingPlain
)

// A Port describes one guest connection.
type Port struct {
	// Name is for logs and [Snapshot], and tells guests apart: an address (MAC) in use
	// moves to a later connection of the same name only, which is how a guest comes
	// back. Empty: the peer's address, of which the port does not count. Whoever
	// connects over a unix socket has the same one, "unix @", and so counts as one
	// guest, of which a later connection takes over the address of an earlier one: to
	// have several, name each.
	Name    string
	Framing Framing
}

// network is a Config with every default filled in.
type network struct {
	Config
	gatewayMAC packet.MAC
	maxFrame   int
}

// resolve fills in the defaults and says which field is wrong.
func (c Config) resolve() (network, error) {
	n := network{Config: c}
	// Whose maps and slices these are may use them again.
	n.GatewayMAC, n.NAT, n.SearchDomains = slices.Clone(n.GatewayMAC), maps.Clone(n.NAT), slices.Clone(n.SearchDomains)
	n.Leases = maps.Clone(n.Leases)
	for a, mac := range n.Leases {
		n.Leases[a] = slices.Clone(mac)
	}
	if n.Subnet == (subnet.Subnet{}) {
		n.Subnet = subnet.Default
	}
	if n.MTU == 0 {
		n.MTU = defaultMTU
	}
	if n.GatewayMAC == nil {
		n.GatewayMAC, _ = net.ParseMAC(defaultGatewayMAC)
	}
	if n.Leases == nil {
		mac, _ := net.ParseMAC(defaultGuestMAC)
		n.Leases = map[netip.Addr]net.HardwareAddr{n.Subnet.Guest: mac}
	}
	if n.NAT == nil {
		n.NAT = map[netip.Addr]netip.Addr{n.Subnet.HostAlias: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	if n.Zones == nil {
		records := []Record{{Name: "gateway", IP: n.Subnet.Gateway}, {Name: "host", IP: n.Subnet.HostAlias}}
		n.Zones = []Zone{{Name: "rancher-desktop.internal.", Records: records}, {Name: "docker.internal.", Records: records}}
	}
	if n.DialOutbound == nil {
		n.DialOutbound = new(net.Dialer).DialContext
	}
	if n.Logger == nil {
		n.Logger = slog.New(slog.DiscardHandler)
	}
	n.maxFrame = packet.EthernetLen + n.MTU
	return n, n.validate()
}

func (n *network) validate() error {
	field := func(name, format string, args ...any) error {
		return fmt.Errorf("hostswitch: Config.%s: %w", name, fmt.Errorf(format, args...))
	}
	s := n.Subnet
	if p := s.Prefix; !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 || p != p.Masked() {
		return field("Subnet", "Prefix %s is not an IPv4 network from /8 to /29; make it with subnet.ValidateSubnet", orMissing(p))
	}
	hosts := []netip.Addr{s.Gateway, s.Guest, s.HostAlias}
	for i, a := range hosts {
		if !n.host(a) || slices.Contains(hosts[:i], a) {
			return field("Subnet", "%s %s is not a host's address of its own in %s; make it with subnet.ValidateSubnet",
				[...]string{"Gateway", "Guest", "HostAlias"}[i], orMissing(a), s.Prefix)
		}
	}
	if n.MTU < minMTU || n.MTU > maxMTU {
		return field("MTU", "%d is not between %d and %d", n.MTU, minMTU, maxMTU)
	}
	if err := unicastMAC(n.GatewayMAC); err != nil {
		return field("GatewayMAC", "%w", err)
	}
	n.gatewayMAC = packet.MAC(n.GatewayMAC)
	for a, mac := range n.Leases {
		switch err := unicastMAC(mac); {
		case err != nil:
			return field("Leases", "%s: %w", orMissing(a), err)
		case packet.MAC(mac) == n.gatewayMAC:
			return field("Leases", "%s: %s is the gateway's MAC", orMissing(a), mac)
		case !n.host(a) || a == s.Gateway:
			return field("Leases", "%s is not a guest's address in %s", orMissing(a), s.Prefix)
		case n.NAT[a].IsValid():
			return field("Leases", "%s is in NAT too; an address is either a guest's or translated", a)
		}
	}
	for from, to := range n.NAT {
		switch {
		case !from.Is4() || !to.Is4():
			return field("NAT", "%s to %s: both have to be IPv4 addresses", orMissing(from), orMissing(to))
		case unreachable(from):
			return field("NAT", "guests can not reach %s", from)
		case from == s.Gateway:
			return field("NAT", "%s is the gateway", from)
		case s.Prefix.Contains(from) && !n.host(from):
			return field("NAT", "%s is not a host's address in %s", from, s.Prefix)
		}
	}
	for i, z := range n.Zones {
		if z.Name == "" {
			return field(fmt.Sprintf("Zones[%d]", i), `Name: it is missing; "." is all names that no other zone has`)
		}
	}
	for _, d := range n.SearchDomains {
		if len(d) > 254 || !domainName.MatchString(d) {
			return field("SearchDomains", "%q is not a domain name", d)
		}
	}
	return nil
}

// orMissing is for messages: what netip says of a zero value names nothing.
func orMissing(a interface {
	fmt.Stringer
	IsValid() bool
}) string {
	if !a.IsValid() {
		return "(missing)"
	}
	return a.String()
}

var domainName = regexp.MustCompile(`^([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?$`)

// host reports whether a can be somebody's address: in the subnet, and neither
// its first, the network's, nor its last, the broadcast address.
func (n *network) host(a netip.Addr) bool {
	p := n.Subnet.Prefix
	return p.Contains(a) && a != p.Addr() && p.Contains(a.Next())
}

func unicastMAC(mac net.HardwareAddr) error {
	if len(mac) != 6 {
		return fmt.Errorf("%q is not an Ethernet address of 6 bytes", mac)
	}
	if m := packet.MAC(mac); m.Multicast() || m == (packet.MAC{}) {
		return fmt.Errorf("%s is not a unicast address", mac)
	}
	return nil
}

// unreachable reports whether no guest may reach a, whatever NAT says: "this
// network", loopback, link-local, multicast and the rest above it.
func unreachable(a netip.Addr) bool {
	b := a.As4()
	return b[0] == 0 || b[0] == 127 || b[0] == 169 && b[1] == 254 || b[0] >= 224
}

var errUnreachable = errors.New("not for guests")

// outbound says where a guest's packet to dst goes.
func (n *network) outbound(dst netip.Addr) (netip.Addr, error) {
	if unreachable(dst) {
		return netip.Addr{}, errUnreachable
	}
	if to, ok := n.NAT[dst]; ok {
		return to, nil
	}
	if n.Subnet.Prefix.Contains(dst) {
		return netip.Addr{}, errUnreachable
	}
	return dst, nil
}
