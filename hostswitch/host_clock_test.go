// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

// A turnedClock is a Host's clock that stands until the test turns it. (The fake time of
// testing/synctest does not do: it never passes beside sockets, nor beside gVisor.)
type turnedClock struct {
	t      testing.TB
	mu     sync.Mutex
	at     time.Time
	alarms []alarm
}

type alarm struct {
	set time.Duration
	due time.Time
	c   chan time.Time
}

func turn(t testing.TB, h *hostswitch.Host) *turnedClock {
	c := &turnedClock{t: t, at: time.Now()}
	h.SetClock(c.now, c.after)
	return c
}

func (c *turnedClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *turnedClock) after(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := alarm{set: d, due: c.at.Add(d), c: make(chan time.Time, 1)}
	c.alarms = append(c.alarms, a)
	c.ringLocked()
	return a.c
}

// pass lets d go by, when the Host has set an alarm for just that long.
func (c *turnedClock) pass(d time.Duration) {
	c.t.Helper()
	eventually(c.t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !slices.ContainsFunc(c.alarms, func(a alarm) bool { return a.set == d }) {
			return false
		}
		c.at = c.at.Add(d)
		c.ringLocked()
		return true
	}, "an alarm in "+d.String())
}

func (c *turnedClock) ringLocked() {
	c.alarms = slices.DeleteFunc(c.alarms, func(a alarm) bool {
		if a.due.After(c.at) {
			return false
		}
		a.c <- c.at
		return true
	})
}
