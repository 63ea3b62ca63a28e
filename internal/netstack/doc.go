// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package netstack wraps gVisor's network stack so that the rest of this module
// sees net.Conn, net.Listener, Ethernet frames and errors of the net and syscall
// packages, and nothing of gVisor.
//
// It uses only what is the same in gVisor 20240916, which gvisor-tap-vsock
// v0.8.9 needs, and in later versions.
//
// # Ownership
//
// A [Stack] owns its timers and goroutines; after Close none is left.
// Connections and listeners made with it end then too.
package netstack
