// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// A clock is the real one, but knows its timers: gVisor leaves some running
// when a stack is closed, for a minute and with the whole stack in hand.
type clock struct {
	tcpip.Clock

	mu      sync.Mutex
	pending map[*timer]struct{}
	closed  bool
	running sync.WaitGroup
}

func newClock() *clock {
	return &clock{Clock: tcpip.NewStdClock(), pending: make(map[*timer]struct{})}
}

// AfterFunc implements [tcpip.Clock].
func (c *clock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	t := &timer{clock: c, f: f}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		t.armedLocked()
		t.timer = time.AfterFunc(d, t.fire)
	}
	return t
}

// close stops every timer and waits for the callbacks under way. Timers made or
// reset later never fire.
func (c *clock) close() {
	c.mu.Lock()
	c.closed = true
	for t := range c.pending {
		t.timer.Stop()
	}
	clear(c.pending)
	c.mu.Unlock()
	c.running.Wait()
}

type timer struct {
	clock *clock
	f     func()
	timer *time.Timer // nil if made after close
	armed int         // how often it is to fire: twice when it is reset as it fires
}

func (t *timer) armedLocked() {
	t.armed++
	t.clock.pending[t] = struct{}{}
}

func (t *timer) disarmedLocked() {
	if t.armed--; t.armed == 0 {
		delete(t.clock.pending, t)
	}
}

func (t *timer) fire() {
	c := t.clock
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	t.disarmedLocked()
	c.running.Add(1)
	c.mu.Unlock()
	defer c.running.Done()
	t.f()
}

// Stop implements [tcpip.Timer].
func (t *timer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	if t.timer == nil || !t.timer.Stop() {
		return false
	}
	t.disarmedLocked()
	return true
}

// Reset implements [tcpip.Timer].
func (t *timer) Reset(d time.Duration) {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	if t.clock.closed || t.timer == nil {
		return
	}
	if !t.timer.Reset(d) {
		t.armedLocked()
	}
}
