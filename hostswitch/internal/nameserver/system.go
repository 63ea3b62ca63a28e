// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	systemTTL  = 10 // seconds, for what the operating system says: it tells no TTL
	maxLookups = 128
)

// ErrNoServers is returned by [System.Resolve] while the host has no name
// server, as without a network.
var ErrNoServers = errors.New("nameserver: the host has no name server")

var errNoQuery = errors.New("nameserver: not a query with one question")

// SystemConfig configures a [System].
type SystemConfig struct {
	// ResolvConf is the file that lists servers and search domains, read again
	// when it changes. Empty: /etc/resolv.conf, and on Windows the network
	// adapters instead, read at most every 5 seconds.
	ResolvConf string
	// Lookup is asked first for LookupTypes: A, AAAA, PTR, MX, NS, SRV and TXT
	// are possible. Nil: see System.
	Lookup      *net.Resolver
	LookupTypes []uint16
	// Dial connects to a server, by "udp" or "tcp". Nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout bounds a Resolve whose context has no deadline, 5 s.
	Timeout time.Duration
}

// A System is the [Resolver] that answers as the host's own programs are
// answered.
//
// Types that the operating system's resolver knows are asked of it first, so
// that hosts file, split DNS and the Windows name resolution policy (NRPT)
// hold: on Windows A, AAAA, PTR, MX, NS, SRV and TXT, on macOS A, AAAA and PTR.
// It hands out neither TTL nor aliases: such answers have a TTL of 10 s and the
// name asked for. On other systems the hosts file alone is asked first, where
// nsswitch.conf allows; the servers of resolv.conf, systemd-resolved's stub for
// one, know the rest, TTL and aliases included. Other NSS modules are not asked.
//
// All else goes to the host's servers unchanged but for the ID, and so does what
// the operating system does not find. If it has the name with another type, an
// NXDOMAIN from the servers becomes an empty answer; if the servers fail, a name
// that the operating system has no address for does not exist. A query with DO set wants signatures, which
// only servers have: they are asked first, the operating system second.
//
// Servers are tried in their order, the next after an error, SERVFAIL or
// REFUSED, all of them again after errors, within the deadline. Every query has
// a socket and an ID of its own. UDP is asked first; a truncated answer is
// passed on if the guest asked by UDP and asked again over TCP if not.
//
// A System holds no goroutine or socket between queries. Where the operating
// system cannot be interrupted, a lookup may outlive its Resolve by the system's
// own timeout; at most 128 do, then servers only are asked.
type System struct {
	cfg       SystemConfig
	source    source
	lookups   chan struct{}
	hostsOnly bool          // cfg.Lookup reads the hosts file only
	turn      atomic.Uint32 // for "options rotate"
}

// NewSystem returns a System. It reads nothing yet and cannot fail: a host that
// has no server now may have one later.
func NewSystem(cfg SystemConfig) *System {
	s := &System{cfg: cfg, lookups: make(chan struct{}, maxLookups)}
	if s.source = platformSource(); cfg.ResolvConf != "" {
		s.source = &fileSource{path: cfg.ResolvConf}
	}
	if cfg.Lookup == nil {
		s.cfg.Lookup, s.cfg.LookupTypes, s.hostsOnly = platformLookup()
	}
	if cfg.Dial == nil {
		s.cfg.Dial = new(net.Dialer).DialContext
	}
	setDefault(&s.cfg.Timeout, 5*time.Second)
	return s
}

// SearchDomains returns the host's search list as it is now, without final dots.
func (s *System) SearchDomains() []string {
	conf, _ := s.source.load() // without one there is no list
	return slices.Clone(conf.search)
}

// Resolve implements [Resolver]. It fails if no server answers and the operating
// system does not know either; the error wraps [ErrNoServers] if there is none.
func (s *System) Resolve(ctx context.Context, network string, query []byte) ([]byte, error) {
	if len(query) < headerLen {
		return nil, errNoQuery
	}
	r, rcode := parseRequest("tcp", query) // the size is the caller's affair
	if rcode != dns.RcodeSuccess {
		return nil, errNoQuery
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
	}
	q := r.msg.Question[0]
	known := q.Qclass == dns.ClassINET && slices.Contains(s.cfg.LookupTypes, q.Qtype)
	signed := r.opt != nil && r.opt.Do()
	if known && !signed {
		if rrs := s.lookup(ctx, q); len(rrs) > 0 {
			return r.reply(dns.RcodeSuccess, false, rrs, nil), nil
		}
	}
	resp, err := s.exchange(ctx, network, query)
	if err == nil && rcodeOf(resp) == dns.RcodeSuccess {
		return resp, nil
	}
	if known && signed {
		if rrs := s.lookup(ctx, q); len(rrs) > 0 {
			return r.reply(dns.RcodeSuccess, false, rrs, nil), nil
		}
	}
	exists, sure := s.exists(ctx, q)
	switch {
	case exists && err == nil && rcodeOf(resp) == dns.RcodeNameError:
		resp[3] &^= 0xf // the SOA stays: it says how long
	case exists:
		return r.reply(dns.RcodeSuccess, false, nil, nil), nil
	case sure && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA) && (err != nil || rcodeOf(resp) != dns.RcodeNameError):
		return r.reply(dns.RcodeNameError, false, nil, nil), nil
	}
	return resp, err
}

// lookup asks the operating system for the records of a type that it knows.
func (s *System) lookup(ctx context.Context, q dns.Question) []dns.RR {
	rrs, _ := abandon(ctx, s.lookups, func(ctx context.Context) ([]dns.RR, error) { return s.lookupType(ctx, q) })
	return rrs // an error is not the end: servers may know
}

// exists asks the operating system whether it has any address for the name, and
// if not whether it is sure.
func (s *System) exists(ctx context.Context, q dns.Question) (exists, sure bool) {
	if q.Qclass != dns.ClassINET || len(s.cfg.LookupTypes) == 0 || !plain(q.Name) {
		return false, false
	}
	addrs, err := abandon(ctx, s.lookups, func(ctx context.Context) ([]netip.Addr, error) {
		return s.cfg.Lookup.LookupNetIP(ctx, "ip", s.hostName(q.Name))
	})
	var notFound *net.DNSError
	return len(addrs) > 0, errors.As(err, &notFound) && notFound.IsNotFound
}

// abandon runs f for half of the time that is left, and leaves it behind if it
// does not end: a system call may not heed its context. slots bounds how many.
func abandon[T any](ctx context.Context, slots chan struct{}, f func(context.Context) (T, error)) (T, error) {
	var zero T
	select {
	case slots <- struct{}{}:
	default:
		return zero, errors.New("nameserver: too many lookups hang in the operating system")
	}
	ctx, cancel := context.WithDeadline(ctx, share(ctx, 2))
	defer cancel()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-slots }()
		v, err := f(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// share returns the end of the first of n equal parts of the time that is left.
func share(ctx context.Context, n int) time.Time {
	now := time.Now()
	deadline, _ := ctx.Deadline()
	return now.Add(deadline.Sub(now) / time.Duration(n))
}

// plain reports whether a name means the same to the operating system as on the
// wire: escapes do not, and the root has no address.
func plain(name string) bool { return name != "." && !strings.Contains(name, `\`) }

// hostName returns the name to look up. The final dot stays, so that no search
// list applies; but Go has single labels of the hosts file without, and a search
// list does nothing there. What is then an address to net is not a name.
func (s *System) hostName(name string) string {
	if label := strings.TrimSuffix(name, "."); s.hostsOnly && !strings.Contains(label, ".") {
		if _, err := netip.ParseAddr(label); err != nil {
			return label
		}
	}
	return name
}

// lookupType makes records of what net.Resolver says.
func (s *System) lookupType(ctx context.Context, q dns.Question) (rrs []dns.RR, err error) {
	if !plain(q.Name) {
		return nil, nil
	}
	res := s.cfg.Lookup
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: systemTTL}
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		network := map[uint16]string{dns.TypeA: "ip4", dns.TypeAAAA: "ip6"}[q.Qtype]
		var addrs []netip.Addr
		addrs, err = res.LookupNetIP(ctx, network, s.hostName(q.Name))
		for _, a := range addrs {
			switch a = a.Unmap(); {
			case a.Is4() && q.Qtype == dns.TypeA:
				rrs = append(rrs, &dns.A{Hdr: hdr, A: a.AsSlice()})
			case a.Is6() && a.Zone() == "" && q.Qtype == dns.TypeAAAA:
				rrs = append(rrs, &dns.AAAA{Hdr: hdr, AAAA: a.AsSlice()})
			}
		}
	case dns.TypePTR:
		p, rest := parseReverse(dns.CanonicalName(q.Name))
		if !p.IsSingleIP() || rest != 0 {
			return nil, nil
		}
		var names []string
		names, err = res.LookupAddr(ctx, p.Addr().String())
		for _, n := range names {
			rrs = append(rrs, &dns.PTR{Hdr: hdr, Ptr: dns.Fqdn(n)})
		}
	case dns.TypeMX:
		var mxs []*net.MX
		mxs, err = res.LookupMX(ctx, q.Name)
		for _, mx := range mxs {
			rrs = append(rrs, &dns.MX{Hdr: hdr, Preference: mx.Pref, Mx: dns.Fqdn(mx.Host)})
		}
	case dns.TypeNS:
		var nss []*net.NS
		nss, err = res.LookupNS(ctx, q.Name)
		for _, ns := range nss {
			rrs = append(rrs, &dns.NS{Hdr: hdr, Ns: dns.Fqdn(ns.Host)})
		}
	case dns.TypeSRV:
		var srvs []*net.SRV
		_, srvs, err = res.LookupSRV(ctx, "", "", q.Name)
		for _, srv := range srvs {
			rrs = append(rrs, &dns.SRV{Hdr: hdr, Priority: srv.Priority, Weight: srv.Weight, Port: srv.Port, Target: dns.Fqdn(srv.Target)})
		}
	case dns.TypeTXT:
		var txts []string
		txts, err = res.LookupTXT(ctx, q.Name)
		for _, txt := range txts {
			rrs = append(rrs, &dns.TXT{Hdr: hdr, Txt: txtStrings(txt)})
		}
	default:
		err = fmt.Errorf("nameserver: LookupTypes cannot have %s", dns.TypeToString[q.Qtype])
	}
	if err != nil && q.Qtype != dns.TypePTR {
		return nil, err // net leaves out records that it finds odd: servers have them all
	}
	return rrs, nil
}

// txtStrings cuts a text into the strings of at most 255 bytes that a TXT record
// is made of, escaped as package dns wants them.
func txtStrings(txt string) []string {
	strs := []string{}
	for part := range slices.Chunk([]byte(txt), 255) {
		var b strings.Builder
		for _, c := range part {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				fmt.Fprintf(&b, `\%03d`, c)
			} else {
				b.WriteByte(c)
			}
		}
		strs = append(strs, b.String())
	}
	return strs
}
