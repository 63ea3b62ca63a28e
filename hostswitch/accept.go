// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"time"
)

// Bounds of the pause after an Accept that failed.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// acceptLoop hands the connections of ln to handle, which must not block, until
// ctx ends or ln is closed. Other errors of Accept it waits out as long as again
// says so: what says something about a connection or a moment passes, and a
// listener that is given up stays given up.
func acceptLoop(ctx context.Context, log *slog.Logger, ln net.Listener, again func(error) bool, handle func(net.Conn)) error {
	pause := minAcceptPause
	for {
		conn, err := ln.Accept()
		if err == nil {
			pause = minAcceptPause
			handle(conn)
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || !again(err) {
			return err
		}
		log.Warn("accept failed, trying again", "address", ln.Addr(), "error", err, "in", pause)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, maxAcceptPause)
	}
}

// always is for listeners of the net package: all that they return passes, until
// they are closed.
func always(error) bool { return true }

// passing reports whether an error of Accept says something about this
// connection or this moment, not about the listener.
func passing(err error) bool {
	if errno, ok := errors.AsType[syscall.Errno](err); ok && slices.Contains(passingErrnos, errno) {
		return true
	}
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// passingErrnos are what Windows says of a peer that was gone before it was accepted,
// and of having run out, and what package syscall does not call temporary there.
// Elsewhere these numbers mean nothing, or (64) a network that is not there, which is
// of one connection, too (accept(2)).
var passingErrnos = []syscall.Errno{
	64,    // ERROR_NETNAME_DELETED
	1236,  // ERROR_CONNECTION_ABORTED
	10053, // WSAECONNABORTED
	10054, // WSAECONNRESET
	1450,  // ERROR_NO_SYSTEM_RESOURCES
	10024, // WSAEMFILE
	10055, // WSAENOBUFS
}
