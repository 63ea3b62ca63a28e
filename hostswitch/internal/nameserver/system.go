// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// ErrNoServers is returned by [System.Resolve] while the host has no name
// server, as without a network.
var ErrNoServers = errors.New("nameserver: the host has no name server")

var errNoQuery = errors.New("nameserver: not a query with one question")

// SystemConfig configures a [System].
type SystemConfig struct {
	// ResolvConf is the file that lists servers and search domains, read again
	// when it changes. Empty: /etc/resolv.conf, and on Windows the network
	// adapters and the registry instead, read at most every 5 seconds.
	ResolvConf string
	// Lookup asks the operating system's resolver. Nil: see System.
	Lookup Lookup
	// Dial connects to a server, by "udp" or "tcp". Nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout bounds a Resolve whose context has no deadline, 5 s.
	Timeout time.Duration
}

// A System is the [Resolver] that answers as the host's own programs are
// answered.
//
// What the operating system's resolver can be asked about it answers, and it
// alone: hosts file, split DNS and the Windows name resolution policy (NRPT)
// hold, and a name that it does not find, or fails to find, is asked of nobody
// else. It knows:
//
//   - on Windows A, AAAA, CNAME, MX, NS, PTR, SOA, SRV and TXT, with aliases and
//     TTLs (DnsQueryEx, interrupted with DnsCancelQuery). Under wine, which
//     cannot interrupt, what macOS knows;
//   - on macOS A, AAAA and PTR of an address, without aliases, and a TTL of 10 s
//     (libc, through package net);
//   - on other systems what the hosts file has, where nsswitch.conf allows it,
//     with a TTL of 10 s. Other NSS modules are not asked.
//
// Those answers are never signed, and say so: DO is clear. A name that the
// operating system does not find is NXDOMAIN only if it has no address either.
//
// The rest goes to the host's servers unchanged but for the ID, systemd-resolved's
// stub for one: other types and classes, names with bytes that a host name cannot
// have, and on Linux all that the hosts file lacks. If they answer anything but
// NOERROR, or not at all, for a name that the operating system has an address
// for, the answer is NOERROR without records. On macOS those servers are the ones
// of the file, which lists the primary resolver's only.
//
// Servers are tried in their order, the next after an error, SERVFAIL or
// REFUSED, all of them again after errors, within the deadline. Every query has
// a socket and an ID of its own. UDP is asked first; a truncated answer is
// passed on if the guest asked by UDP and asked again over TCP if not.
//
// A System holds no goroutine or socket between queries. On macOS and wine a
// lookup cannot be interrupted and may outlive its Resolve, up to the operating
// system's own timeout; 64 at once may be under way, more fail.
type System struct {
	cfg    SystemConfig
	source source
	turn   atomic.Uint32 // for "options rotate"
}

// NewSystem returns a System. It reads nothing yet and cannot fail: a host that
// has no server now may have one later.
func NewSystem(cfg SystemConfig) *System {
	s := &System{cfg: cfg}
	if s.source = platformSource(); cfg.ResolvConf != "" {
		s.source = &fileSource{path: cfg.ResolvConf}
	}
	if cfg.Lookup == nil {
		s.cfg.Lookup = platformLookup()
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

// Resolve implements [Resolver]. It fails if the operating system does, or if no
// server answers; the error wraps [ErrNoServers] if there is none.
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
	rrs, err := s.lookup(ctx, q)
	switch {
	case err == nil:
		return s.reply(r, dns.RcodeSuccess, rrs), nil
	case errors.Is(err, ErrNoName):
		exists, err := s.exists(ctx, q)
		switch {
		case err != nil:
			return nil, err
		case exists:
			return s.reply(r, dns.RcodeSuccess, nil), nil
		}
		return s.reply(r, dns.RcodeNameError, nil), nil
	case !errors.Is(err, errors.ErrUnsupported):
		return nil, err
	}

	resp, err := s.exchange(ctx, network, query)
	if err == nil && rcodeOf(resp) == dns.RcodeSuccess {
		return resp, nil
	}
	if exists, _ := s.exists(ctx, q); exists {
		if err == nil && rcodeOf(resp) == dns.RcodeNameError {
			resp[3] &^= 0xf // the SOA stays: it says how long
			return resp, nil
		}
		return s.reply(r, dns.RcodeSuccess, nil), nil
	}
	return resp, err
}

// reply makes an answer of what the operating system says.
func (s *System) reply(r *request, rcode int, rrs []dns.RR) []byte {
	if r.opt != nil {
		r.opt.SetDo(false) // whoever validates sees that there are no signatures
	}
	return r.reply(rcode, false, rrs, nil)
}

func (s *System) lookup(ctx context.Context, q dns.Question) ([]dns.RR, error) {
	if q.Qclass != dns.ClassINET || !isHostName(q.Name) {
		return nil, errors.ErrUnsupported
	}
	return s.cfg.Lookup(ctx, q)
}

// exists asks the operating system whether a name has an address of a family
// other than the one asked for: hosts files and broadcast protocols may know one
// and deny the other. The error is why it is not sure. What has a reverse name
// has no address.
func (s *System) exists(ctx context.Context, q dns.Question) (bool, error) {
	if q.Qtype == dns.TypePTR {
		return false, nil
	}
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if t == q.Qtype {
			continue
		}
		switch _, err := s.lookup(ctx, dns.Question{Name: q.Name, Qtype: t, Qclass: q.Qclass}); {
		case err == nil:
			return true, nil
		case !errors.Is(err, ErrNoName) && !errors.Is(err, errors.ErrUnsupported):
			return false, err
		}
	}
	return false, nil
}

// isHostName reports whether a name means the same to the operating system as on
// the wire: escapes do not, the root has no address, and what net would take for
// an address is not a name.
func isHostName(name string) bool {
	_, err := netip.ParseAddr(strings.TrimSuffix(name, "."))
	return err != nil && name != "." && !strings.Contains(name, `\`)
}

// share returns the end of the first of n equal parts of the time that is left.
func share(ctx context.Context, n int) time.Time {
	now := time.Now()
	deadline, _ := ctx.Deadline()
	return now.Add(deadline.Sub(now) / time.Duration(n))
}
