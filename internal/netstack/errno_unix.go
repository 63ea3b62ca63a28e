// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package netstack

import "syscall"

// What the sockets of this system say.
const (
	errRefused          = syscall.ECONNREFUSED
	errReset            = syscall.ECONNRESET
	errAborted          = syscall.ECONNABORTED
	errTimedOut         = syscall.ETIMEDOUT
	errHostUnreachable  = syscall.EHOSTUNREACH
	errNetUnreachable   = syscall.ENETUNREACH
	errAddrInUse        = syscall.EADDRINUSE
	errAddrNotAvailable = syscall.EADDRNOTAVAIL
	errPipe             = syscall.EPIPE
	errNotConnected     = syscall.ENOTCONN
	errMessageSize      = syscall.EMSGSIZE
	errNoBuffers        = syscall.ENOBUFS
)
