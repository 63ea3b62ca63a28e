// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// quotas gives every source slots of its own, so that none takes them all. A
// source is remembered while it holds one or waits for one.
type quotas struct {
	each int

	mu sync.Mutex
	of map[netip.Addr]*quota
}

type quota struct {
	slots chan struct{}
	users int
}

func newQuotas(each int) *quotas { return &quotas{each: each, of: map[netip.Addr]*quota{}} }

// acquire takes one of all and one of source's share of it. If there is none it
// waits until ctx ends, or fails at once. The caller calls release afterwards.
func (q *quotas) acquire(ctx context.Context, all chan struct{}, source netip.Addr, wait bool) (release func(), ok bool) {
	own := q.enter(source)
	if take(ctx, own, wait) {
		// Its share first: what waits for that must not keep others out.
		if take(ctx, all, wait) {
			return func() { <-all; <-own; q.leave(source) }, true
		}
		<-own
	}
	q.leave(source)
	return nil, false
}

func take(ctx context.Context, slots chan struct{}, wait bool) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
	}
	if !wait {
		return false
	}
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (q *quotas) enter(source netip.Addr) chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := q.of[source]
	if own == nil {
		own = &quota{slots: make(chan struct{}, q.each)}
		q.of[source] = own
	}
	own.users++
	return own.slots
}

func (q *quotas) leave(source netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of[source].users--; q.of[source].users == 0 {
		delete(q.of, source)
	}
}

// sourceOf returns the zero Addr for what is no IP endpoint: all those share.
func sourceOf(a net.Addr) netip.Addr {
	if ip, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return ip.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
