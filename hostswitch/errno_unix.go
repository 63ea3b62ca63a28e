// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package hostswitch

import "syscall"

// What the host's sockets say, by the names of this system.
const (
	errRefused         = syscall.ECONNREFUSED
	errPipe            = syscall.EPIPE
	errReset           = syscall.ECONNRESET
	errNetUnreachable  = syscall.ENETUNREACH
	errNetDown         = syscall.ENETDOWN
	errHostDown        = syscall.EHOSTDOWN
	errNoAddr          = syscall.EADDRNOTAVAIL
	errHostUnreachable = syscall.EHOSTUNREACH
	errAddrInUse       = syscall.EADDRINUSE
	errMessageSize     = syscall.EMSGSIZE
)
