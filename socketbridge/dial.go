// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
)

// unsupported is the error for what this system does not have.
func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

// DialUnix returns a dial function for the unix socket at path. It ends with its
// context. When the server's backlog is full it waits; a socket that is not there
// or that nobody listens on is an error at once.
func DialUnix(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		if path == "" {
			return nil, errors.New("socketbridge: the path of the unix socket to dial is empty")
		}
		for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
			if err == nil {
				return conn, nil
			}
			// Linux does not wait for a place in the backlog for a socket that does
			// not block, and says so.
			if !errors.Is(err, syscall.EAGAIN) {
				return nil, fmt.Errorf("socketbridge: %w%s", err, unixHint(path, err))
			}
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil, fmt.Errorf("socketbridge: dial unix %s, whose backlog is full: %w", path, ctx.Err())
			case <-timer.C:
			}
		}
	}
}

// unixHint says what to do about a socket that cannot be connected to.
func unixHint(path string, err error) string {
	info, statErr := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ": is the server running, and is this its socket?"
	case runtime.GOOS != "windows" && statErr == nil && info.Mode().Type() != fs.ModeSocket:
		return fmt.Sprintf(": it is no socket (%v), is this the server's path?", info.Mode())
	case errors.Is(err, errConnRefused):
		return ": nobody listens on this socket any more, start the server"
	case errors.Is(err, fs.ErrPermission):
		return ": connecting takes the right to write to the socket"
	}
	return ""
}

// DialVsock returns a dial function for a vsock port, on Linux: of the host, CID 2,
// or of a guest. It ends with its context. The connection is a [vsock.Conn]. That
// nobody listens there is a reset connection, not a refused one.
func DialVsock(cid, port uint32) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		if runtime.GOOS != "linux" {
			return nil, fmt.Errorf("socketbridge: %w", unsupported("vsock"))
		}
		conn, err := vsock.DialContext(ctx, cid, port, nil)
		switch { // not a nil *vsock.Conn in an interface
		case errors.Is(err, syscall.ECONNRESET):
			return nil, fmt.Errorf("socketbridge: %w: nobody listens on this port there, is the server running?", err)
		case err != nil:
			return nil, fmt.Errorf("socketbridge: %w", err)
		}
		return conn, nil
	}
}
