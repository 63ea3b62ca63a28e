// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"net"
	"net/netip"
	"sync"
)

// A quota bounds how many of something there are, in all and for each guest, so
// that one does not use up what is there for all.
type quota struct {
	max, each int

	mu    sync.Mutex
	taken int
	by    map[netip.Addr]int
}

func newQuota(limit, each int) *quota {
	return &quota{max: limit, each: each, by: make(map[netip.Addr]int)}
}

// take reports whether there is one left for a guest, which has it then.
func (q *quota) take(guest netip.Addr) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken >= q.max || q.by[guest] >= q.each {
		return false
	}
	q.taken++
	q.by[guest]++
	return true
}

// give takes one back.
func (q *quota) give(guest netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken--
	if q.by[guest]--; q.by[guest] == 0 {
		delete(q.by, guest)
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
}

// Accept implements [net.Listener].
func (l quotaListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := netip.Addr{}
		if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			from = a.Addr()
		}
		if l.quota.take(from) {
			return &quotaConn{Conn: c, quota: l.quota, from: from}, nil
		}
		abort(c)
	}
}

type quotaConn struct {
	net.Conn
	quota *quota
	from  netip.Addr
	once  sync.Once
}

// Close implements [net.Conn].
func (c *quotaConn) Close() error {
	c.once.Do(func() { c.quota.give(c.from) })
	return c.Conn.Close()
}
