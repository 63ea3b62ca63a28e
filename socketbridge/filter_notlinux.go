// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package socketbridge

// peerCID needs Linux, where vsock is.
func peerCID(int) (uint32, error) { return 0, unsupported("vsock") }
