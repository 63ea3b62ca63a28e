// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A footprint is what a process holds that a Switch must give back.
type footprint struct{ goroutines, descriptors int }

func measure() footprint {
	return footprint{runtime.NumGoroutine(), descriptors()}
}

// settles waits until no more is held than before.
func settles(t testing.TB, before footprint) {
	t.Helper()
	var now footprint
	ok := func() bool {
		now = measure()
		return now.goroutines <= before.goroutines && now.descriptors <= before.descriptors+spare
	}
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			require.FailNow(t, fmt.Sprintf("before %+v, now %+v\n%s", before, now, stacks))
		}
		<-time.After(time.Millisecond)
	}
}

// tick waits until the clock has moved, for which Windows takes up to 16 ms.
func tick() {
	for start := time.Now(); !time.Now().After(start); {
		runtime.Gosched()
	}
}
