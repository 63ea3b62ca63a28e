// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

// The errors of this system's sockets, for the tests from outside. On Windows those
// of package syscall by the same names are others.
const (
	ErrRefused         = errRefused
	ErrReset           = errReset
	ErrNetUnreachable  = errNetUnreachable
	ErrHostUnreachable = errHostUnreachable
	ErrAddrInUse       = errAddrInUse
)
