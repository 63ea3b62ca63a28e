// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package socketbridge_test

import "syscall"

const passingErrno = syscall.EMFILE
