// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Results of DnsQueryEx (winerror.h).
const (
	statusInvalidName     = 123  // ERROR_INVALID_NAME
	statusNoSuchName      = 9003 // DNS_ERROR_RCODE_NAME_ERROR
	statusNotImplemented  = 9004 // DNS_ERROR_RCODE_NOT_IMPLEMENTED
	statusNoRecords       = 9501 // DNS_INFO_NO_RECORDS
	statusPending         = 9506 // DNS_REQUEST_PENDING
	statusInvalidNameChar = 9560 // DNS_ERROR_INVALID_NAME_CHAR
	statusNoSuchRecord    = 9701 // DNS_ERROR_RECORD_DOES_NOT_EXIST
	statusNameNotThere    = 9714 // DNS_ERROR_NAME_DOES_NOT_EXIST
)

// A dnsQuery is DnsQueryEx: it asks for a name without its final dot, returns the
// records of all types that came as an answer, and a status. It ends with ctx.
type dnsQuery func(ctx context.Context, name string, qtype uint16) ([]dns.RR, uint32)

// dnsapiLookup asks Windows. Types of which Windows has had no structure from the
// start come in one of two forms, depending on its version: servers know those.
func dnsapiLookup(query dnsQuery) Lookup {
	types := []uint16{
		dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeMX, dns.TypeNS, dns.TypePTR, dns.TypeSOA, dns.TypeSRV, dns.TypeTXT,
	}
	return func(ctx context.Context, q dns.Question) ([]dns.RR, error) {
		if !slices.Contains(types, q.Qtype) {
			return nil, errors.ErrUnsupported
		}
		rrs, status := query(ctx, strings.TrimSuffix(q.Name, "."), q.Qtype)
		if ctx.Err() != nil {
			return nil, ctx.Err() // that is why status is an error
		}
		switch status {
		case 0:
			return answerTo(q, rrs), nil
		case statusNoRecords, statusNoSuchRecord:
			return nil, nil
		case statusNoSuchName, statusNameNotThere:
			return nil, ErrNoName
		case statusInvalidName, statusInvalidNameChar, statusNotImplemented:
			return nil, fmt.Errorf("nameserver: DnsQueryEx does not ask that (error %d): %w", status, errors.ErrUnsupported)
		}
		return nil, fmt.Errorf("nameserver: DnsQueryEx failed with error %d; on Windows, \"net helpmsg %[1]d\" explains it", status)
	}
}

// answerTo picks the aliases that lead from the name asked for, and the records
// asked for at their end. Windows finds some names under another one, as that of
// a neighbour; such records get the name at which they were looked for.
func answerTo(q dns.Question, rrs []dns.RR) (answer []dns.RR) {
	name := q.Name
	for range rrs { // a loop of aliases ends
		i := slices.IndexFunc(rrs, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeCNAME && strings.EqualFold(rr.Header().Name, name)
		})
		if i < 0 || q.Qtype == dns.TypeCNAME {
			break
		}
		alias := rrs[i].(*dns.CNAME)
		alias.Hdr.Name = name // as it was spelt
		answer, name = append(answer, alias), alias.Target
	}
	var others []dns.RR
	n := len(answer)
	for _, rr := range rrs {
		switch h := rr.Header(); {
		case h.Rrtype != q.Qtype:
		case strings.EqualFold(h.Name, name):
			h.Name = name
			answer = append(answer, rr)
		default:
			others = append(others, rr)
		}
	}
	if len(answer) == n {
		for _, rr := range others {
			rr.Header().Name = name
			answer = append(answer, rr)
		}
	}
	return answer
}

// txtStrings cuts a text into the strings of at most 255 bytes that a TXT record
// is made of, escaped as package dns wants them.
func txtStrings(txt string) []string {
	if txt == "" {
		return []string{""}
	}
	var strs []string
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
