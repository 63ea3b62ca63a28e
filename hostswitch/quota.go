// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"net"
	"net/netip"
	"sync"
)

// An account is whom something is counted for that is there for all, so that one does
// not use it up: a guest, whatever addresses it gives itself and however often it
// connects; or an address that forwards lead to, for what their clients do is not that
// guest's doing.
type account struct {
	guest uint64 // its port's ID; 0: it is not known
	to    netip.Addr
}

// forwarded is the account of all that forwards carry.
var forwarded = account{to: netip.IPv4Unspecified()}

// A quota bounds how many of something there are, in all and for each guest; all that are
// not known have an eighth of one's share together. Forwards have twice a guest's: what a
// guest sends through them to itself is counted there too, and must not be all of it.
type quota struct {
	max, each int

	mu    sync.Mutex
	taken int
	by    map[account]int
}

func newQuota(limit, each int) *quota {
	return &quota{max: limit, each: each, by: make(map[account]int)}
}

// account returns whom a guest's address counts for.
func (s *Switch) account(a netip.Addr) account { return account{guest: s.stack.PeerAt(a)} }

// take reports whether there is one left for somebody, who has it then.
func (q *quota) take(of account) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	each := q.each
	switch of {
	case account{}:
		each /= 8
	case forwarded:
		each *= 2
	}
	if q.taken >= q.max || q.by[of] >= each {
		return false
	}
	q.taken++
	q.by[of]++
	return true
}

// give takes one back.
func (q *quota) give(of account) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken--
	if q.by[of]--; q.by[of] == 0 {
		delete(q.by, of)
	}
}

func (q *quota) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.taken
}

// A quotaListener closes the connections that are beyond a quota.
type quotaListener struct {
	net.Listener
	quota *quota
	of    func(netip.Addr) account
}

// Accept implements [net.Listener].
func (l quotaListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var of account
		if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			of = l.of(a.Addr())
		}
		if l.quota.take(of) {
			return &quotaConn{Conn: c, quota: l.quota, of: of}, nil
		}
		abort(c)
	}
}

type quotaConn struct {
	net.Conn
	quota *quota
	of    account
	once  sync.Once
}

// Close implements [net.Conn].
func (c *quotaConn) Close() error {
	c.once.Do(func() { c.quota.give(c.of) })
	return c.Conn.Close()
}
