// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/mdlayher/vsock"
)

// ErrInUse is what every [InUseError] is.
var ErrInUse = errors.New("socketbridge: in use")

// An InUseError says that a name or port cannot be listened on because another
// listener has it.
type InUseError struct {
	Network string // "unix", "vsock" or "pipe"
	Address string // the path, port or pipe
	Err     error  // what the system said
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("socketbridge: another listener, of this process or another, has %s %s: stop it or use another address: %v",
		e.Network, e.Address, e.Err)
}

// Unwrap returns what the system said.
func (e *InUseError) Unwrap() error { return e.Err }

// Is reports whether target is ErrInUse.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// ListenVsock listens on a vsock port on any of this machine's CIDs, on Linux. 0 is
// a port of the kernel's choice. Every process of this machine and of its host or
// guests can connect, so take a filter: [AllowCID]. Connections are [vsock.Conn].
//
// A port that is taken is an [InUseError].
func ListenVsock(port uint32) (net.Listener, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("socketbridge: %w", unsupported("vsock"))
	}
	ln, err := vsock.ListenContextID(anyCID, port, nil)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, errAddrInUse):
		return nil, &InUseError{Network: "vsock", Address: fmt.Sprintf("port %d", port), Err: err}
	default:
		return nil, fmt.Errorf("socketbridge: %w", err)
	}
}
