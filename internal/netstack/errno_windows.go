// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import "golang.org/x/sys/windows"

// What the sockets of this system say; the constants of syscall by the usual
// names are others, which it never returns.
const (
	errRefused          = windows.WSAECONNREFUSED
	errReset            = windows.WSAECONNRESET
	errAborted          = windows.WSAECONNABORTED
	errTimedOut         = windows.WSAETIMEDOUT
	errHostUnreachable  = windows.WSAEHOSTUNREACH
	errNetUnreachable   = windows.WSAENETUNREACH
	errAddrInUse        = windows.WSAEADDRINUSE
	errAddrNotAvailable = windows.WSAEADDRNOTAVAIL
	errPipe             = windows.WSAESHUTDOWN
	errNotConnected     = windows.WSAENOTCONN
	errMessageSize      = windows.WSAEMSGSIZE
	errNoBuffers        = windows.WSAENOBUFS
)
