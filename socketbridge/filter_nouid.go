// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin

package socketbridge

// AllowUID does not ask this elsewhere than on Linux and macOS.
func peerUID(int) (uint32, error) { return 0, unsupported("credentials of unix peers") }
