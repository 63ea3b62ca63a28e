// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package socketbridge

// useKernel changes nothing here: what is fastest is known of Linux only.
func (*direction) useKernel() {}
