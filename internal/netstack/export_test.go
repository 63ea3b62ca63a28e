// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

// The errors of this system, for the tests from outside.
const (
	ErrRefused         = errRefused
	ErrReset           = errReset
	ErrHostUnreachable = errHostUnreachable
	ErrAddrInUse       = errAddrInUse
	ErrPipe            = errPipe
	ErrNotConnected    = errNotConnected
	ErrMessageSize     = errMessageSize
)
