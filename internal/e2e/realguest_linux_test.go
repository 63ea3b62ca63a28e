// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import "testing"

// TestRealGuest is a Linux network stack behind examples/guestswitch, on the
// network of examples/hostswitch.
func TestRealGuest(t *testing.T) {
	needs(t)
	p := build(t)
	for name, run := range map[string]func(*testing.T, programs){
		"Address":     testAddress,
		"API":         testAPI,
		"Barrier":     testBarrier,
		"End":         testEnd,
		"Gvforwarder": testGvforwarder,
		"HalfClose":   testHalfClose,
		"MTU1500":     testTraffic(1500),
		"MTU3986":     testTraffic(3986),
		"MTU65000":    testTraffic(65000),
		"Names":       testNames,
		"Neighbours":  testNeighbours,
		"Ping":        testPing,
		"Subnet":      testSubnet,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, p)
		})
	}
}
