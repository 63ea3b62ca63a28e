// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import "golang.org/x/sys/windows"

// What the host's sockets say, by the names of this system.
const (
	errRefused         = windows.WSAECONNREFUSED
	errPipe            = windows.WSAESHUTDOWN
	errReset           = windows.WSAECONNRESET
	errNetUnreachable  = windows.WSAENETUNREACH
	errNetDown         = windows.WSAENETDOWN
	errHostDown        = windows.WSAEHOSTDOWN
	errNoAddr          = windows.WSAEADDRNOTAVAIL
	errHostUnreachable = windows.WSAEHOSTUNREACH
	errAddrInUse       = windows.WSAEADDRINUSE
	errMessageSize     = windows.WSAEMSGSIZE
)
