// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package docker holds the tests of the socket bridge with a real Docker: its own
// daemon on one end, its own command on the other, and between them the programs
// of examples/ as a user runs them, joined by a unix socket where a VM has its
// vsock:
//
//	docker → docker-host → rdd-guest → dockerd
//
// The daemon lives in namespaces of its own and ends with them, containers and
// mounts included; it changes nothing outside of the test's folder.
package docker
