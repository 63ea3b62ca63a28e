// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package socketbridge

import "syscall"

// On other systems all bytes are copied.

func rawOf(HalfCloser) syscall.RawConn { return nil }

func (*direction) useKernel() {}
