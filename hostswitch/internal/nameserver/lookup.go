// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

const (
	systemTTL  = 10 // seconds, where the operating system tells none
	maxLookups = 64
)

// ErrNoName is what a [Lookup] says of a name that does not exist.
var ErrNoName = errors.New("nameserver: the operating system knows no such name")

// A Lookup asks the operating system's resolver for records of one type of a name
// in class IN, without a search list. It returns none if the name exists without
// such records, [ErrNoName] if it does not exist, and an error that wraps
// [errors.ErrUnsupported] if that is not for the operating system to say, so that
// servers are asked. All other errors end the query. It must return when ctx ends.
type Lookup func(ctx context.Context, q dns.Question) ([]dns.RR, error)

// hostsLookup reads the hosts file. What is not in there may still exist.
func hostsLookup(ctx context.Context, q dns.Question) ([]dns.RR, error) {
	// Go's own resolver ends with its context, and here has no network to wait for.
	res := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("nameserver: hosts file only")
	}}
	if label := strings.TrimSuffix(q.Name, "."); !strings.Contains(label, ".") {
		q.Name = label // Go has single labels without a dot; a search list does nothing here
	}
	rrs, err := netLookup(ctx, res, q)
	if len(rrs) == 0 || err != nil {
		return nil, errors.ErrUnsupported
	}
	return rrs, nil
}

// libcLookup asks res, whose lookups may not heed a context: it leaves them behind
// then, at most maxLookups, until they end by themselves.
func libcLookup(res *net.Resolver) Lookup {
	slots := make(chan struct{}, maxLookups)
	return func(ctx context.Context, q dns.Question) ([]dns.RR, error) {
		select {
		case slots <- struct{}{}:
		default:
			return nil, fmt.Errorf("nameserver: %d lookups hang in the operating system; look after the host's DNS", maxLookups)
		}
		type result struct {
			rrs []dns.RR
			err error
		}
		done := make(chan result, 1)
		go func() {
			defer func() { <-slots }()
			// With ctx package net would return and leave its own goroutine, uncounted.
			rrs, err := netLookup(context.WithoutCancel(ctx), res, q)
			done <- result{rrs, err}
		}()
		select {
		case r := <-done:
			return r.rrs, r.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// netLookup makes records of what package net says about addresses and their names.
// It is ErrNoName also if there are only records of other types.
func netLookup(ctx context.Context, res *net.Resolver, q dns.Question) (rrs []dns.RR, err error) {
	hdr := dns.RR_Header{Name: dns.Fqdn(q.Name), Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: systemTTL}
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		network := map[uint16]string{dns.TypeA: "ip4", dns.TypeAAAA: "ip6"}[q.Qtype]
		var addrs []netip.Addr
		addrs, err = res.LookupNetIP(ctx, network, q.Name)
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
			return nil, errors.ErrUnsupported
		}
		var names []string
		names, err = res.LookupAddr(ctx, p.Addr().String())
		for _, n := range names { // those that net finds odd are left out, with an error
			rrs = append(rrs, &dns.PTR{Hdr: hdr, Ptr: escapeName(n)})
		}
	default:
		return nil, errors.ErrUnsupported
	}
	var not *net.DNSError
	switch {
	case len(rrs) > 0:
		return rrs, nil
	case errors.As(err, &not) && not.IsNotFound:
		return nil, ErrNoName
	case err != nil:
		return nil, fmt.Errorf("nameserver: the operating system's resolver: %w", err)
	}
	return nil, nil
}

// escapeName writes a name of the operating system as package dns wants it.
func escapeName(name string) string {
	return dns.Fqdn(strings.ReplaceAll(name, `\`, `\\`))
}
