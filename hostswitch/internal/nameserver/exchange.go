// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// exchange hands query to the host's servers in turn. The answer has the ID and
// the question of query.
func (s *System) exchange(ctx context.Context, network string, query []byte) ([]byte, error) {
	conf, err := s.source.load()
	if len(conf.servers) == 0 {
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoServers, err)
		}
		return nil, ErrNoServers
	}
	first := 0
	if conf.rotate {
		first = int(s.turn.Add(1) % uint32(len(conf.servers)))
	}
	tries := conf.attempts * len(conf.servers)
	var refusal []byte
	for i := range tries {
		server := conf.servers[(first+i)%len(conf.servers)]
		deadline := share(ctx, tries-i)
		if limit := time.Now().Add(conf.timeout); conf.timeout > 0 && limit.Before(deadline) {
			deadline = limit
		}
		var resp []byte
		resp, err = s.ask(ctx, deadline, network, server, query)
		switch {
		case err != nil:
		case rcodeOf(resp) == dns.RcodeServerFailure || rcodeOf(resp) == dns.RcodeRefused:
			refusal = resp
		default:
			return resp, nil
		}
		if ctx.Err() != nil || refusal != nil && (i+1)%len(conf.servers) == 0 {
			break // an answer of this kind does not get better by asking again
		}
	}
	if refusal != nil {
		return refusal, nil
	}
	return nil, fmt.Errorf("nameserver: no server of the host answers: %w", err)
}

// ask asks one server.
func (s *System) ask(ctx context.Context, deadline time.Time, network string, server netip.Addr, query []byte) ([]byte, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	address := netip.AddrPortFrom(server, 53).String()
	resp, err := s.roundTrip(ctx, "udp", address, query)
	if err == nil && isTruncated(resp) && network == "tcp" {
		resp, err = s.roundTrip(ctx, "tcp", address, query)
	}
	return resp, err
}

// roundTrip uses a fresh socket, whose port the kernel picks, and a fresh random
// ID: whoever forges an answer has to guess both (RFC 5452).
func (s *System) roundTrip(ctx context.Context, network, address string, query []byte) ([]byte, error) {
	conn, err := s.cfg.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	endCtx, end := context.WithCancel(ctx)
	closed := closeAtEnd(endCtx, conn)
	defer func() { end(); closed() }()

	q := slices.Clone(query)
	_, _ = rand.Read(q[:2]) // never fails
	msg, read := q, readDatagram
	if network == "tcp" {
		msg, read = framed(q), func(c net.Conn) ([]byte, error) { return readMessage(c, dns.MaxMsgSize) }
	}
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	for {
		resp, err := read(conn)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err() // that is why conn was closed
			}
			return nil, fmt.Errorf("%s %s: %w", network, address, err)
		}
		if !isReplyTo(q, resp) {
			continue // forged, or a stray: the true one may still come
		}
		setMessageID(resp, binary.BigEndian.Uint16(query))
		restoreQuestion(query, resp)
		return resp, nil
	}
}

func readDatagram(c net.Conn) ([]byte, error) {
	buf := make([]byte, dns.MaxMsgSize)
	n, err := c.Read(buf)
	return slices.Clone(buf[:n]), err
}
