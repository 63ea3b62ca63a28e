// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	defaultMin = time.Second
	defaultMax = time.Minute
)

// Restart says whether and how soon a task that ended by itself is run again. The
// zero value means never.
//
// Every exit that nobody asked for is restarted, one with a nil error too, unless
// the error is [Permanent]. The wait before the first restart lies between Min and
// twice Min; its bounds double with each further one, and it never exceeds Max. It
// is drawn at random between its bounds, so that tasks which died together do not
// come back together. After a run longer than Max the waits begin again at Min.
type Restart struct {
	// Min is the shortest wait. 0 means 1 s (or Max, if that is less); negative
	// means none: every restart comes at once.
	Min time.Duration
	// Max is the longest wait, raised to Min if it is less. 0 means 1 minute;
	// negative means no bound, and then no run is long enough to begin again at Min.
	Max time.Duration
}

func (r Restart) withDefaults() Restart {
	switch {
	case r == Restart{}:
		return r
	case r.Max < 0:
		r.Max = math.MaxInt64
	case r.Max == 0:
		r.Max = defaultMax
	}
	if r.Min == 0 {
		r.Min = min(defaultMin, r.Max)
	}
	r.Max = max(r.Max, r.Min)
	return r
}

// backoff is the wait of one task; the zero value has not waited yet.
type backoff struct{ bound time.Duration }

// next returns how long to wait after a run that took this long.
func (b *backoff) next(r Restart, took time.Duration) time.Duration {
	if r.Min < 0 {
		return 0
	}
	if took > r.Max || b.bound == 0 {
		b.bound = r.Min
	}
	if b.bound > r.Max/2 {
		b.bound = r.Max
	} else {
		b.bound *= 2
	}
	low := max(r.Min, b.bound/2)
	return low + rand.N(b.bound-low+1)
}
