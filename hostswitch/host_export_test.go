// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import "time"

// Pause is how long a Host waits after so many failures in a row.
var Pause = pause

// SetPause has a Host wait as f says, in place of Pause.
func (h *Host) SetPause(f func(failures int) time.Duration) { h.times.pause = f }

// SetWaiting changes how often a Host says that it waits.
func (h *Host) SetWaiting(d time.Duration) { h.times.waiting = d }

// SetShort changes how long a connection is short.
func (h *Host) SetShort(d time.Duration) { h.times.short = d }
