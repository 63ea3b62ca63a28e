// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"net"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// asError translates an error of the stack into what the kernel's sockets
// return, so that errors.Is works alike on both sides of a relay.
func asError(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrConnectionRefused:
		return errRefused
	case *tcpip.ErrConnectionReset:
		return errReset
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return errAborted
	case *tcpip.ErrTimeout:
		return errTimedOut
	case *tcpip.ErrHostUnreachable, *tcpip.ErrHostDown, *tcpip.ErrNoNet:
		return errHostUnreachable
	case *tcpip.ErrNetworkUnreachable:
		return errNetUnreachable
	case *tcpip.ErrPortInUse, *tcpip.ErrDuplicateAddress:
		return errAddrInUse
	case *tcpip.ErrBadLocalAddress, *tcpip.ErrNoPortAvailable:
		return errAddrNotAvailable
	case *tcpip.ErrClosedForSend:
		return errPipe
	case *tcpip.ErrNotConnected:
		return errNotConnected
	case *tcpip.ErrMessageTooLong:
		return errMessageSize
	case *tcpip.ErrNoBufferSpace:
		return errNoBuffers
	case *tcpip.ErrInvalidEndpointState:
		return net.ErrClosed
	default:
		return errors.New(err.String())
	}
}
