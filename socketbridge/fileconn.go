// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// FileConn returns the connection behind a descriptor that this process has
// inherited, on Linux and macOS: a connected stream socket, unix (*net.UnixConn),
// TCP (*net.TCPConn) or, on Linux, vsock, which [Pipe] treats as it does a *vsock.Conn.
//
// It takes f over: f is closed when FileConn returns, also with an error. The socket
// becomes non-blocking, for every process that shares it.
func FileConn(f *os.File) (net.Conn, error) {
	if f == nil {
		return nil, errors.New("socketbridge: FileConn was given a nil file: is the descriptor open?")
	}
	defer func() { _ = f.Close() }()
	conn, err := fileConn(f)
	if err != nil {
		return nil, fmt.Errorf("socketbridge: FileConn of %s: %w", f.Name(), err)
	}
	return conn, nil
}

// FileListener returns the listener behind a descriptor that this process has
// inherited, as systemd hands them over (sd_listen_fds(3)), on Linux and macOS: a
// listening stream socket, unix, TCP or, on Linux, vsock. Its connections are
// *net.UnixConn, *net.TCPConn or *vsock.Conn. The file of a unix socket is not
// removed when it is closed.
//
// It takes f over: f is closed when FileListener returns, also with an error.
func FileListener(f *os.File) (net.Listener, error) {
	if f == nil {
		return nil, errors.New("socketbridge: FileListener was given a nil file: is the descriptor open?")
	}
	defer func() { _ = f.Close() }()
	ln, err := fileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socketbridge: FileListener of %s: %w", f.Name(), err)
	}
	return ln, nil
}
