// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// The table is bounded for each port, so that a guest that invents addresses
// pushes out its own only, and forgets what was not heard of for a while.
const (
	maxMACs = 256
	macAge  = 5 * time.Minute
)

// A cam is the switch's table of who is where (content-addressable memory).
type cam struct {
	mu      sync.RWMutex
	entries map[packet.MAC]*camEntry
	count   map[*port]int
}

type camEntry struct {
	port *port
	seen atomic.Int64 // Unix ns
}

func newCAM() *cam {
	return &cam{entries: make(map[packet.MAC]*camEntry), count: make(map[*port]int)}
}

// lookup returns the port behind an address, or nil.
func (c *cam) lookup(mac packet.MAC) *port {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.entries[mac]; e != nil {
		return e.port
	}
	return nil
}

// learn notes that mac is behind p, and reports false if it is somebody else's. A
// guest that comes back on a new connection takes its address along.
func (c *cam) learn(mac packet.MAC, p *port, now time.Time) bool {
	c.mu.RLock()
	e := c.entries[mac]
	c.mu.RUnlock()
	if e != nil && e.port == p {
		e.seen.Store(now.UnixNano())
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[mac]; e != nil && !p.succeeds(e.port) && now.UnixNano()-e.seen.Load() < int64(macAge) {
		return false
	}
	if c.count[p] >= maxMACs && !c.ageLocked(p, now) {
		p.drop(dropTableFull)
		return true
	}
	if e := c.entries[mac]; e != nil {
		c.count[e.port]--
	}
	e = &camEntry{port: p}
	e.seen.Store(now.UnixNano())
	c.entries[mac] = e
	c.count[p]++
	return true
}

// ageLocked forgets what p was not heard of for long, and reports whether there
// is room now.
func (c *cam) ageLocked(p *port, now time.Time) bool {
	limit := now.Add(-macAge).UnixNano()
	for mac, e := range c.entries {
		if e.port == p && e.seen.Load() < limit {
			delete(c.entries, mac)
			c.count[p]--
		}
	}
	return c.count[p] < maxMACs
}

// forget removes a port that is gone.
func (c *cam) forget(p *port) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for mac, e := range c.entries {
		if e.port == p {
			delete(c.entries, mac)
		}
	}
	delete(c.count, p)
}

// each calls f for every address.
func (c *cam) each(f func(mac packet.MAC, p *port, seen time.Time)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for mac, e := range c.entries {
		f(mac, e.port, time.Unix(0, e.seen.Load()))
	}
}
