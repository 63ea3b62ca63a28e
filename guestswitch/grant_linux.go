// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// grant is a server's answer, read and judged.
type grant struct {
	ack         *dhcpv4.DHCPv4
	lease       Lease
	t1, t2, end time.Time // zero: never
}

var errBadLease = errors.New("the server's answer holds no usable address")

// newGrant reads an ACK to what was asked at the time asked. What a renewal leaves
// out stays as it was in last, which may be nil: some servers send the times only.
func newGrant(ack *dhcpv4.DHCPv4, last *grant, asked time.Time) (*grant, error) {
	if last != nil {
		for code, value := range last.ack.Options {
			if _, given := ack.Options[code]; !given {
				ack.Options[code] = value
			}
		}
	}
	addr, ok := ipv4(ack.YourIPAddr)
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	bits, size := mask.Size()
	if !ok || !addr.IsGlobalUnicast() || size != 32 || bits == 0 {
		return nil, errBadLease
	}
	g := &grant{ack: ack, lease: Lease{
		Addr:   netip.PrefixFrom(addr, bits),
		Domain: domain(ack.DomainName()),
	}}
	for _, ip := range ack.Router() {
		if a, ok := ipv4(ip); ok && a.IsGlobalUnicast() {
			g.lease.Router = a // the first is preferred (RFC 2132)
			break
		}
	}
	for _, ip := range ack.DNS() {
		if a, ok := ipv4(ip); ok {
			g.lease.DNS = append(g.lease.DNS, a)
		}
	}
	if labels := ack.DomainSearch(); labels != nil {
		for _, l := range labels.Labels {
			if l = domain(l); l != "" {
				g.lease.Search = append(g.lease.Search, l)
			}
		}
	}
	if b := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		if mtu := int(binary.BigEndian.Uint16(b)); mtu >= minMTU {
			g.lease.MTU = min(mtu, maxMTU)
		}
	}
	g.lease.Server, _ = ipv4(ack.ServerIdentifier())
	g.setTimes(asked)
	return g, nil
}

// setTimes has T1 at half and T2 at 7/8 of the lease unless the server says so
// and means it (RFC 2131, section 4.4.5). A lease is a second at least: less is
// a server gone wrong, and would keep both ends busy.
func (g *grant) setTimes(asked time.Time) {
	const forever = 1<<32 - 1
	d := g.ack.IPAddressLeaseTime(time.Hour)
	if d == forever*time.Second {
		return
	}
	d = max(d, time.Second)
	t1 := g.ack.IPAddressRenewalTime(0)
	t2 := g.ack.IPAddressRebindingTime(0)
	if t2 <= 0 || t2 >= d {
		t2 = d / 8 * 7
	}
	if t1 <= 0 || t1 >= t2 {
		t1 = min(d/2, t2)
	}
	g.lease.Duration = d
	g.t1, g.t2, g.end = asked.Add(t1), asked.Add(t2), asked.Add(d)
}

func ipv4(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return a, ok && a.Is4() && !a.IsUnspecified()
}

// domain returns s if it can be a domain name, so that nothing but names gets
// into a resolv.conf.
func domain(s string) string {
	s = strings.TrimRight(s, "\x00.")
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return ""
		}
	}
	return s
}
