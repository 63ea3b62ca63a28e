// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import "time"

// Pause is how long a Host waits after so many failures in a row.
var Pause = pause

// SetPause has a Host wait as f says, in place of Pause.
func (h *Host) SetPause(f func(failures int) time.Duration) { h.times.pause = f }

// SetClock has a Host go by a clock of the test's.
func (h *Host) SetClock(now func() time.Time, after func(time.Duration) <-chan time.Time) {
	h.times.now, h.times.after = now, after
}

// The fixed times of a Host, and how often it looks for stalls by default.
const (
	WaitingEvery   = waitingEvery
	ConnectTimeout = defaultConnectTimeout
	LookEvery      = defaultStallTimeout / looks
)
