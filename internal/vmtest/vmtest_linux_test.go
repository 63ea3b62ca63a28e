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
	vmtest.Run(t,
		vmtest.Build(t, race(), "./host", "-guest=1"),
		vmtest.Build(t, race(), "./guest", "-host=1").With(t, "../../examples/rdd-guest"))
}

// TestPackages: the tests of other packages that need AF_VSOCK.
func TestPackages(t *testing.T) {
	vmtest.Run(t,
		vmtest.Build(t, race(), "../../discovery", "-test.run=Vsock"),
		vmtest.Build(t, race(), "../../socketbridge", "-test.run=Vsock"))
}

// race says whether this test has the race detector.
func race() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
