// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// hungUp are the errors of a write or shutdown towards a peer that has closed; the
// third line is what Windows says of a socket that it is asked about as a file, the
// fourth what named pipes say. A reset is among them: Windows says the same of both,
// and to whoever reads says it again, so that it is not taken for EOF.
var hungUp = []error{
	syscall.EPIPE, windows.WSAENOTCONN, windows.WSAESHUTDOWN,
	windows.WSAECONNRESET, windows.WSAECONNABORTED,
	windows.ERROR_NETNAME_DELETED, windows.ERROR_CONNECTION_ABORTED,
	windows.ERROR_BROKEN_PIPE, windows.ERROR_NO_DATA, windows.ERROR_PIPE_NOT_CONNECTED,
}
