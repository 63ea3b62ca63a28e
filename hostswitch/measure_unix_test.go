// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package hostswitch_test

import "os"

// spare is how many descriptors more are no leak.
const spare = 0

// descriptors counts the open files of this process, where the system lists them.
func descriptors() int {
	for _, list := range []string{"/proc/self/fd", "/dev/fd"} {
		if all, err := os.ReadDir(list); err == nil {
			return len(all)
		}
	}
	return 0
}
