// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	maxZones   = 1024
	maxRecords = 16384
)

// A Zone is a domain that the server answers for. It means what it means in
// gvisor-tap-vsock's pkg/types.
type Zone struct {
	Name      string     // "docker.internal.", with or without the last dot; "" or ".": see the package comment
	Records   []Record   // the first that matches is the answer
	DefaultIP netip.Addr // IPv4, for names that no record matches; zero: they do not exist
}

// A Record gives names of a [Zone] an address.
type Record struct {
	Name   string         // relative to the zone; with Regexp also empty: the zone itself
	IP     netip.Addr     // IPv4
	Regexp *regexp.Regexp // also matches relative names, as asked or in lower case; nil: none
}

// A table is an immutable set of zones.
type table struct {
	zones   []*zone // in the order in which they came
	byName  map[string]*zone
	reverse map[netip.Addr]string
	records int
}

type zone struct {
	Zone
	name     string   // canonical
	relative []string // canonical names of Records, "" where only the Regexp matches
}

// A found is what a table has for a name.
type found struct {
	zone   string
	apex   bool
	exists bool
	addr   netip.Addr // what an A query gets
	ptr    string     // what a PTR query gets
}

// with returns a copy of t that has z too, merged into its namesake.
func (t *table) with(z Zone) (*table, error) {
	added, err := newZone(z)
	if err != nil {
		return nil, err
	}
	n := &table{zones: slices.Clone(t.zones), byName: maps.Clone(t.byName), reverse: map[netip.Addr]string{}}
	if n.byName == nil {
		n.byName = map[string]*zone{}
	}
	if old := n.byName[added.name]; old != nil {
		added.appendFrom(old)
		n.zones[slices.Index(n.zones, old)] = added
	} else {
		n.zones = append(n.zones, added)
	}
	n.byName[added.name] = added
	for _, z := range n.zones {
		n.records += len(z.Records)
		for i, r := range z.Records {
			name := z.name
			if rel := z.relative[i]; rel != "" {
				name = join(rel, z.name)
			} else if r.Regexp != nil {
				continue
			}
			if _, ok := n.reverse[r.IP]; !ok {
				n.reverse[r.IP] = name
			}
		}
	}
	if len(n.zones) > maxZones || n.records > maxRecords {
		return nil, fmt.Errorf("the table of zones is full: at most %d zones and %d records", maxZones, maxRecords)
	}
	return n, nil
}

func newZone(z Zone) (*zone, error) {
	name, err := canonical("Name", dns.Fqdn(z.Name))
	if err != nil {
		return nil, err
	}
	c := &zone{Zone: z, name: name}
	c.Records = nil
	if c.DefaultIP = z.DefaultIP.Unmap(); c.DefaultIP.IsValid() && !c.DefaultIP.Is4() {
		return nil, fmt.Errorf("DefaultIP: %v is not an IPv4 address", z.DefaultIP)
	}
	for i, r := range z.Records {
		if !r.IP.IsValid() {
			return nil, fmt.Errorf("Records[%d].IP: it is missing", i)
		}
		if r.IP = r.IP.Unmap(); !r.IP.Is4() {
			return nil, fmt.Errorf("Records[%d].IP: %v is not an IPv4 address", i, r.IP)
		}
		var rel string
		if r.Name != "" {
			full, err := canonical(fmt.Sprintf("Records[%d].Name", i), join(r.Name, name))
			if err != nil {
				return nil, err
			}
			rel = relativeTo(full, name)
		}
		c.Records, c.relative = append(c.Records, r), append(c.relative, rel)
	}
	return c, nil
}

// appendFrom appends the records of old that z does not hide. Otherwise adding
// the same zone again and again would fill the table.
func (z *zone) appendFrom(old *zone) {
	type key struct{ name, regexp string }
	keyOf := func(z *zone, i int) key {
		k := key{name: z.relative[i]}
		if re := z.Records[i].Regexp; re != nil {
			k.regexp = "=" + re.String()
		}
		return k
	}
	hidden := map[key]bool{}
	for i := range z.Records {
		hidden[keyOf(z, i)] = true
	}
	for i, r := range old.Records {
		if !hidden[keyOf(old, i)] {
			z.Records, z.relative = append(z.Records, r), append(z.relative, old.relative[i])
		}
	}
}

// lookup finds what the server itself knows about a question. The second result
// tells whether the name is its own at all.
func (t *table) lookup(q dns.Question, subnet netip.Prefix) (found, bool) {
	name := dns.CanonicalName(q.Name)
	if f, ok := t.lookupReverse(name, subnet); ok {
		return f, true
	}
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if z := t.byName[name[off:]]; z != nil && name[off:] != "." {
			return z.lookup(strings.TrimSuffix(name[:off], "."), strings.TrimSuffix(q.Name[:off], ".")), true
		}
	}
	if z := t.byName["."]; z != nil && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA) {
		return z.lookup(strings.TrimSuffix(name, "."), strings.TrimSuffix(q.Name, ".")), true
	}
	return found{}, false
}

// lookup finds a relative name, in lower case and as it was asked.
func (z *zone) lookup(rel, asked string) found {
	f := found{zone: z.name, apex: rel == "", exists: rel == "" || z.DefaultIP.IsValid(), addr: z.DefaultIP}
	for i, r := range z.Records {
		literal := z.relative[i] != "" || r.Regexp == nil
		if literal && z.relative[i] == rel || r.Regexp != nil && (r.Regexp.MatchString(asked) || r.Regexp.MatchString(rel)) {
			f.exists, f.addr = true, r.IP
			return f
		}
		if strings.HasSuffix(z.relative[i], "."+rel) { // an empty non-terminal, RFC 8020
			f.exists = true
		}
	}
	return f
}

// lookupReverse finds the names below in-addr.arpa that lie inside subnet.
func (t *table) lookupReverse(name string, subnet netip.Prefix) (found, bool) {
	p, rest := parseReverse(name)
	if !subnet.IsValid() || p.Bits() < subnet.Bits() || !subnet.Contains(p.Addr()) {
		return found{}, false
	}
	labels := dns.SplitDomainName(name)
	own := subnet.Bits()/8 + 2 // labels of the zone: the subnet's whole octets, and in-addr.arpa
	f := found{zone: dns.Fqdn(strings.Join(labels[len(labels)-own:], ".")), apex: len(labels) == own}
	if p.IsSingleIP() {
		if rest == 0 {
			f.ptr = t.reverse[p.Addr()]
		}
		f.exists = f.ptr != ""
	} else {
		f.exists = rest == 0
	}
	return f, true
}

func (f found) answer(r *request) []byte {
	q := r.msg.Question[0]
	hdr := func(name string, rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET} // TTL 0: zones change while guests run
	}
	// RFC 6303, section 3: the server of a zone that has none is the zone.
	soa := &dns.SOA{Hdr: hdr(f.zone, dns.TypeSOA), Ns: f.zone, Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 1200, Expire: 604800}
	is := func(rrtype uint16) bool { return q.Qtype == rrtype || q.Qtype == dns.TypeANY }
	var rr dns.RR
	switch {
	case f.addr.IsValid() && is(dns.TypeA):
		rr = &dns.A{Hdr: hdr(q.Name, dns.TypeA), A: f.addr.AsSlice()}
	case f.ptr != "" && is(dns.TypePTR):
		rr = &dns.PTR{Hdr: hdr(q.Name, dns.TypePTR), Ptr: f.ptr}
	case f.apex && is(dns.TypeSOA):
		rr = soa
	case f.apex && is(dns.TypeNS):
		rr = &dns.NS{Hdr: hdr(q.Name, dns.TypeNS), Ns: f.zone}
	case f.exists:
		return r.reply(dns.RcodeSuccess, true, nil, []dns.RR{soa})
	default:
		return r.reply(dns.RcodeNameError, true, nil, []dns.RR{soa})
	}
	return r.reply(dns.RcodeSuccess, true, []dns.RR{rr}, nil)
}

func join(rel, zone string) string {
	if zone == "." {
		return rel + "."
	}
	return rel + "." + zone
}

func relativeTo(full, zone string) string {
	return strings.TrimSuffix(strings.TrimSuffix(full, zone), ".")
}

// canonical returns name in lower case and with the escapes that a name from the
// wire has, so that the two compare equal. Its error names field.
func canonical(field, name string) (string, error) {
	var buf [256]byte
	_, ok := dns.IsDomainName(name)
	_, err := dns.PackDomainName(name, buf[:], 0, nil, false)
	if !ok || err != nil {
		return "", fmt.Errorf("%s: %q is not a domain name", field, name)
	}
	name, _, err = dns.UnpackDomainName(buf[:], 0)
	return dns.CanonicalName(name), err
}
