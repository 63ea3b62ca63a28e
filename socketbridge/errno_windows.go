// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// passing are the errors of accept after which the next one may succeed: the peer
// has gone, or something has run out. The second line is what named pipes say.
var passing = []syscall.Errno{
	windows.WSAECONNABORTED, windows.WSAECONNRESET, windows.WSAEINTR, windows.WSAEMFILE, windows.WSAENOBUFS, windows.WSAEWOULDBLOCK,
	windows.ERROR_NETNAME_DELETED, windows.ERROR_NO_DATA, windows.ERROR_BROKEN_PIPE, windows.ERROR_PIPE_BUSY,
	windows.ERROR_TOO_MANY_OPEN_FILES, windows.ERROR_NOT_ENOUGH_MEMORY, windows.ERROR_NO_SYSTEM_RESOURCES, windows.ERROR_OUTOFMEMORY,
}

const (
	errConnRefused = windows.WSAECONNREFUSED
	errAddrInUse   = windows.WSAEADDRINUSE
)
