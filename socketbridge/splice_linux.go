// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package socketbridge

// useKernel does nothing yet.
func (*direction) useKernel() {}
