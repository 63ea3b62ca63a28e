// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package switchtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Lookup asks the guest's name server for the IPv4 addresses of a host, which
// may be a literal address. A name without dots is looked for in the lease's
// search domains first. The error is a [*net.DNSError], whose IsNotFound says that
// the name does not exist or has no address.
func (g *Guest) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return g.addrs(ctx, host)
}

func (g *Guest) addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if !a.Is4() {
			return nil, &net.DNSError{Err: "not an IPv4 address", Name: host, IsNotFound: true}
		}
		return []netip.Addr{a}, nil
	}
	var names []string
	if !strings.Contains(host, ".") {
		for _, s := range g.searchDomains() {
			names = append(names, dns.Fqdn(host+"."+s))
		}
	}
	names = append(names, dns.Fqdn(host))
	for _, name := range names {
		addrs, err := g.ask(ctx, host, name)
		if err != nil || len(addrs) > 0 {
			return addrs, err
		}
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (g *Guest) searchDomains() []string {
	l := g.Lease()
	if len(l.Search) == 0 && l.Domain != "" {
		return []string{l.Domain}
	}
	return l.Search
}

// ask returns no address if the name has none.
func (g *Guest) ask(ctx context.Context, host, name string) ([]netip.Addr, error) {
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	query, err := m.Pack()
	if err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: host, UnwrapErr: err}
	}
	answer := new(dns.Msg)
	for _, network := range []string{"udp", "tcp"} {
		var wire []byte
		if wire, err = g.Exchange(ctx, network, query); err == nil {
			err = answer.Unpack(wire)
		}
		if err != nil {
			timeout := errors.Is(err, context.DeadlineExceeded)
			return nil, &net.DNSError{Err: err.Error(), Name: host, UnwrapErr: err, IsTimeout: timeout, IsTemporary: timeout}
		}
		if !answer.Truncated {
			break
		}
	}
	switch answer.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	default:
		return nil, &net.DNSError{Err: "the server answers " + dns.RcodeToString[answer.Rcode], Name: host, IsTemporary: answer.Rcode == dns.RcodeServerFailure}
	}
	var addrs []netip.Addr
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			if ip, ok := netip.AddrFromSlice(a.A.To4()); ok {
				addrs = append(addrs, ip)
			}
		}
	}
	return addrs, nil
}

// Resolver returns a resolver of the net package that asks the guest's name
// server, for the record types that Lookup does not know. It looks into this
// machine's hosts file and configuration too, as the net package does: end
// names with a dot to keep clear of its search domains.
func (g *Guest) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		server, err := g.nameServer()
		if err != nil {
			return nil, err
		}
		return g.DialContext(ctx, network, server)
	}}
}

// Exchange sends one DNS message to the guest's name server over "udp" or "tcp"
// and returns the answer to it, both as they are on the wire (RFC 1035), without
// the length that TCP puts in front. Over UDP it asks again each second until
// ctx ends.
func (g *Guest) Exchange(ctx context.Context, network string, query []byte) ([]byte, error) {
	if len(query) < 12 || len(query) > dns.MaxMsgSize {
		return nil, fmt.Errorf("switchtest: exchange: %d bytes are no DNS message", len(query))
	}
	tcp, err := protocol(network)
	if err != nil {
		return nil, err
	}
	server, err := g.nameServer()
	if err != nil {
		return nil, fmt.Errorf("switchtest: exchange: %w", err)
	}
	c, err := g.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // the answer is there, or will not come
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer []byte
	if tcp {
		answer, err = exchangeTCP(c, query)
	} else {
		answer, err = exchangeUDP(ctx, c, query)
	}
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case g.ended():
		err = ErrClosed
	}
	return nil, fmt.Errorf("switchtest: exchange with %s: %w", server, err)
}

func (g *Guest) nameServer() (string, error) {
	servers := g.Lease().DNS
	if len(servers) == 0 {
		return "", g.orEnded(fmt.Errorf("no name server: %w", ErrNoAddress))
	}
	return netip.AddrPortFrom(servers[0], 53).String(), nil
}

func exchangeTCP(c net.Conn, query []byte) ([]byte, error) {
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(c, answer)
	return answer, err
}

func exchangeUDP(ctx context.Context, c net.Conn, query []byte) ([]byte, error) {
	b := make([]byte, dns.MaxMsgSize)
	for {
		if _, err := c.Write(query); err != nil {
			return nil, err
		}
		for {
			if err := c.SetReadDeadline(time.Now().Add(again)); err != nil {
				return nil, err
			}
			if ctx.Err() != nil { // the deadline of its end may just have been overwritten
				return nil, ctx.Err()
			}
			n, err := c.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, err
			}
			if n >= 12 && bytes.Equal(b[:2], query[:2]) {
				return b[:n], nil
			}
		}
	}
}
