// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"flag"
	"testing"
)

// soak is for make test-soak: the tests that move bulk move all that they are about,
// one after the other, and say what it took.
var soak = flag.Bool("soak", false, "move a gigabyte by every path, without the race detector")

// TestRealGuest is a Linux network stack behind examples/guestswitch, on the
// network of examples/hostswitch.
func TestRealGuest(t *testing.T) {
	needs(t)
	p := build(t)
	for name, run := range map[string]func(*testing.T, programs){
		"Address":           testAddress,
		"API":               testAPI,
		"Barrier":           testBarrier,
		"End":               testEnd,
		"Gvforwarder":       testGvforwarder,
		"HalfClose":         testHalfClose,
		"Integrity":         testIntegrity(offloadGuest),
		"IntegrityPlain":    testIntegrity(plainGuest),
		"IntegrityOldGuest": testIntegrity(oldGuest),
		"Loss":              testLoss(offloadGuest),
		"LossPlain":         testLoss(plainGuest),
		"MTU1500":           testTraffic(1500),
		"MTU3986":           testTraffic(3986),
		"MTU65000":          testTraffic(65000),
		"Names":             testNames,
		"Neighbours":        testNeighbours,
		"Ping":              testPing,
		"RelayRestart":      testRelayRestart,
		"Restart":           testRestart(offloadGuest),
		"RestartOldGuest":   testRestart(oldGuest),
		"Subnet":            testSubnet,
	} {
		t.Run(name, func(t *testing.T) {
			if !*soak {
				t.Parallel()
			}
			run(t, p)
		})
	}
}
