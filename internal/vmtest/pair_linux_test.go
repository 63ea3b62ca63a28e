// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build pair

package vmtest_test

import (
	"testing"

	"github.com/rancher-sandbox/guestnet/internal/vmtest"
)

// TestTwoMachines: a host, CID 2, and its guest, CID 42. Too slow for the race
// detector, and for the ordinary run: make test-vm.
func TestTwoMachines(t *testing.T) {
	vmtest.RunPair(t,
		vmtest.Build(t, false, "./host", "-guest=42"),
		vmtest.Build(t, false, "./guest", "-host=2", "-await=42").With(t, "../../examples/rdd-guest"))
}
