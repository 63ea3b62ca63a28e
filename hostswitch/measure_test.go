// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"fmt"
	"os"
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

// descriptors counts the open files of this process, where the system lists them.
func descriptors() int {
	for _, list := range []string{"/proc/self/fd", "/dev/fd"} {
		if all, err := os.ReadDir(list); err == nil {
			return len(all)
		}
	}
	return 0
}

// settles waits until no more is held than before.
func settles(t testing.TB, before footprint) {
	t.Helper()
	var now footprint
	ok := func() bool {
		now = measure()
		return now.goroutines <= before.goroutines && now.descriptors <= before.descriptors
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
