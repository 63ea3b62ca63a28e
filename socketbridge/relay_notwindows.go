// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package socketbridge

import "syscall"

// hungUp are the errors of a write or shutdown towards a peer that has closed.
var hungUp = []error{syscall.EPIPE, syscall.ENOTCONN}
