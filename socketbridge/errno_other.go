// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package socketbridge

import "syscall"

// passing are the errors of accept after which the next one may succeed: the peer
// has gone, something has run out, or, on Linux, the network had an error already
// when the connection was made (accept(2)).
var passing = []syscall.Errno{
	syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EAGAIN,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
	syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.ETIMEDOUT,
	syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
}

const (
	errConnRefused = syscall.ECONNREFUSED
	errAddrInUse   = syscall.EADDRINUSE
)
