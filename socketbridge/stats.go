// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"sync/atomic"
	"time"
)

// Stats says what a pipe has carried. A byte is counted when its destination has
// accepted it, which for a socket means its kernel buffer; so the counts are right
// also when an error or a cancel ended the pipe.
type Stats struct {
	AToB, BToA int64         // bytes from a to b, and from b to a
	Duration   time.Duration // from the call of Pipe until both connections were closed
}

// A meter counts, while a pipe runs, what its destinations have accepted. Several
// pipes may share the totals. A nil total is not kept.
type meter struct{ aToB, bToA *atomic.Int64 }
