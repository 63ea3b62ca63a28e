// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package vmtest_test

import (
	"runtime/debug"
	"slices"
	"testing"

	"github.com/rancher-sandbox/guestnet/internal/vmtest"
)

// TestLoopback: both ends in one machine, each CID 1 to the other. With the race
// detector if this test has it.
func TestLoopback(t *testing.T) {
	info, _ := debug.ReadBuildInfo()
	race := slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
	vmtest.Run(t,
		vmtest.Build(t, race, "./host", "-guest=1"),
		vmtest.Build(t, race, "./guest", "-host=1"))
}
