// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package discovery

import "syscall"

// errRefused is what connecting to a socket is that nobody listens on.
const errRefused = syscall.ECONNREFUSED
