// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// A Resolver answers what is in none of the zones.
type Resolver interface {
	// Resolve answers a whole DNS message (RFC 1035, section 4) with another;
	// network, "udp" or "tcp", is how the guest asked. It must return when ctx
	// ends and may be called concurrently. The answer must have the ID and the
	// question of the query: anything else becomes SERVFAIL.
	Resolve(ctx context.Context, network string, query []byte) ([]byte, error)
}

// Config configures a [Server].
type Config struct {
	Zones       []Zone
	Subnet      netip.Prefix  // IPv4; its reverse names are answered from Zones; zero: none is
	Resolver    Resolver      // nil: what is in no zone is SERVFAIL
	Timeout     time.Duration // for the Resolver, per query; 0: 5 s, negative: none
	MaxInFlight int           // queries at the Resolver at once; more are dropped (UDP) or wait (TCP); 0: 256
	MaxStreams  int           // TCP connections at once, more are closed; 0: 64
	IdleTimeout time.Duration // for a TCP client to send a whole query or take an answer; 0: 10 s, negative: none
	Logger      *slog.Logger  // nil: silent

	// What one source, an IP address, may have of MaxInFlight and MaxStreams,
	// so that one guest does not starve the others. 0: a quarter and an eighth
	// of them, but at least 1. Not more than all of them.
	MaxPerSource, MaxStreamsPerSource int
}

// Stats counts since New.
type Stats struct {
	Queries   uint64 // messages that were due an answer
	Local     uint64 // answered from the zones
	Forwarded uint64 // handed to the Resolver
	Failed    uint64 // forwarded and answered with SERVFAIL for want of a usable answer
	Dropped   uint64 // UDP queries and TCP connections beyond the limits of Config
}

// Server answers DNS queries. Make one with [New]; it may serve any number of
// sockets. All methods may be called concurrently.
type Server struct {
	cfg   Config
	log   *slog.Logger
	slots chan struct{} // one for each query at the Resolver
	share *quotas       // of slots

	addMu sync.Mutex // held to replace table
	table atomic.Pointer[table]

	queries, local, forwarded, failed, dropped atomic.Uint64
}

// New returns a Server. Nothing runs yet. Errors name the field of Config.
func New(cfg Config) (*Server, error) {
	if min(cfg.MaxInFlight, cfg.MaxStreams, cfg.MaxPerSource, cfg.MaxStreamsPerSource) < 0 {
		return nil, errors.New("nameserver: MaxInFlight, MaxStreams, MaxPerSource and MaxStreamsPerSource must not be negative; 0 is the default")
	}
	if cfg.Subnet != (netip.Prefix{}) && !cfg.Subnet.Addr().Is4() {
		return nil, fmt.Errorf("nameserver: Subnet: %v is not an IPv4 prefix", cfg.Subnet)
	}
	cfg.Subnet = cfg.Subnet.Masked()
	setDefault(&cfg.Timeout, 5*time.Second)
	setDefault(&cfg.MaxInFlight, 256)
	setDefault(&cfg.MaxStreams, 64)
	setDefault(&cfg.MaxPerSource, max(1, cfg.MaxInFlight/4))
	setDefault(&cfg.MaxStreamsPerSource, max(1, cfg.MaxStreams/8))
	setDefault(&cfg.IdleTimeout, 10*time.Second)
	cfg.MaxPerSource = min(cfg.MaxPerSource, cfg.MaxInFlight)
	cfg.MaxStreamsPerSource = min(cfg.MaxStreamsPerSource, cfg.MaxStreams)
	s := &Server{cfg: cfg, log: cfg.Logger, slots: make(chan struct{}, cfg.MaxInFlight), share: newQuotas(cfg.MaxPerSource)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.table.Store(&table{})
	for i, z := range cfg.Zones {
		if err := s.addZone(z); err != nil {
			return nil, fmt.Errorf("nameserver: Zones[%d]: %w", i, err)
		}
	}
	return s, nil
}

func setDefault[T comparable](v *T, def T) {
	if *v == *new(T) {
		*v = def
	}
}

// AddZone adds a zone, or merges it into the zone of the same name as
// gvisor-tap-vsock does: the new records go before the old ones, the new
// DefaultIP replaces the old one even if it is zero. Old records that a new one
// of the same Name or Regexp hides are dropped. It fails, without effect, if a
// name or address is invalid, or if there would be more than 1024 zones or
// 16384 records.
func (s *Server) AddZone(z Zone) error {
	if err := s.addZone(z); err != nil {
		return fmt.Errorf("zone %q: %w", z.Name, err)
	}
	return nil
}

func (s *Server) addZone(z Zone) error {
	s.addMu.Lock()
	defer s.addMu.Unlock()
	t, err := s.table.Load().with(z)
	if err != nil {
		return err
	}
	s.table.Store(t)
	return nil
}

// Zones returns a copy of the zones.
func (s *Server) Zones() []Zone {
	zones := []Zone{}
	for _, z := range s.table.Load().zones {
		c := z.Zone
		c.Records = slices.Clone(c.Records)
		zones = append(zones, c)
	}
	return zones
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Queries: s.queries.Load(), Local: s.local.Load(), Forwarded: s.forwarded.Load(),
		Failed: s.failed.Load(), Dropped: s.dropped.Load(),
	}
}

// Answer answers one message that came over network, "udp" or "tcp". It returns
// nil if no answer is due: the message is no query, has not even a header, or
// ctx ended while it waited its turn at the Resolver. All callers together count
// as one source.
func (s *Server) Answer(ctx context.Context, network string, query []byte) []byte {
	return s.answer(ctx, network, netip.Addr{}, query)
}

func (s *Server) answer(ctx context.Context, network string, source netip.Addr, query []byte) []byte {
	resp, r := s.answerLocal(network, query)
	if r == nil {
		return resp
	}
	release, ok := s.share.acquire(ctx, s.slots, source, true)
	if !ok {
		return nil
	}
	defer release()
	return s.forward(ctx, r)
}

// answerLocal answers what needs no Resolver. Otherwise it returns the request
// to forward, which refers to query.
func (s *Server) answerLocal(network string, query []byte) ([]byte, *request) {
	if len(query) < headerLen || isResponse(query) {
		return nil, nil
	}
	s.queries.Add(1)
	r, rcode := parseRequest(network, query)
	if rcode != dns.RcodeSuccess {
		return r.reply(rcode, false, nil, nil), nil
	}
	q := r.msg.Question[0]
	if q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		return r.reply(dns.RcodeRefused, false, nil, nil), nil
	}
	f, ours := s.table.Load().lookup(q, s.cfg.Subnet)
	if !ours {
		return nil, r
	}
	s.local.Add(1)
	if q.Qclass != dns.ClassINET {
		return r.reply(dns.RcodeRefused, false, nil, nil), nil
	}
	return f.answer(r), nil
}

// forward asks the Resolver. The caller holds one of the slots.
func (s *Server) forward(ctx context.Context, r *request) []byte {
	s.forwarded.Add(1)
	resp, err := s.ask(ctx, r)
	if err != nil {
		s.failed.Add(1)
		q := r.msg.Question[0]
		s.log.Debug("no answer to a query", "name", q.Name, "type", dns.TypeToString[q.Qtype], "err", err)
		return r.reply(dns.RcodeServerFailure, false, nil, nil)
	}
	return resp
}

func (s *Server) ask(ctx context.Context, r *request) ([]byte, error) {
	if s.cfg.Resolver == nil {
		return nil, errors.New("nameserver: no Resolver is configured")
	}
	if s.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
	}
	resp, err := s.cfg.Resolver.Resolve(ctx, r.network, slices.Clone(r.wire))
	if err != nil {
		return nil, err
	}
	if len(resp) > dns.MaxMsgSize || !isReplyTo(r.wire, resp) {
		return nil, errors.New("nameserver: the Resolver's answer does not belong to the query")
	}
	if questionCount(resp) == 0 { // an error that came as a bare header
		return r.reply(rcodeOf(resp), false, nil, nil), nil
	}
	resp = slices.Clone(resp) // a Resolver may hand out what it caches
	restoreQuestion(r.wire, resp)
	return r.fit(resp), nil
}
