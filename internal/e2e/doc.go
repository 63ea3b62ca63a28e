// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests of the main job on real input: the programs of
// examples/ as a user runs them, joined by a unix socket where a VM has its
// vsock, and on the guest's side the kernel's own network stack with the tools
// that people use on it.
//
// Each test lays out network namespaces of its own and drives nothing outside
// of them: a world with servers, a host that has the world as its default route,
// and guests, which have a tap and nothing else.
package e2e
