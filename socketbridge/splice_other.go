// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package socketbridge

import (
	"net"
	"syscall"
)

// On other systems all bytes are copied.

func rawOf(conn HalfCloser) (raw syscall.RawConn, orderly bool) {
	_, orderly = conn.(*net.UnixConn)
	return nil, orderly
}

func (*direction) useKernel() {}
