// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin

package socketbridge

// peerUID needs Linux or macOS.
func peerUID(int) (uint32, error) { return 0, unsupported("credentials of unix peers") }
