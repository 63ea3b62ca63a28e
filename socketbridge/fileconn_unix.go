// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package socketbridge

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

func fileConn(f *os.File) (net.Conn, error) {
	local, listens, err := inspect(f)
	switch {
	case err != nil:
		return nil, err
	case listens:
		return nil, errors.New("it is a listening socket: use FileListener")
	}
	if conn, err := fileVsockConn(f, local); conn != nil || err != nil {
		return conn, err
	}
	conn, err := net.FileConn(f) // a copy
	if err != nil {
		return nil, err
	}
	switch conn := conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		if conn.RemoteAddr() != nil {
			return conn, nil
		}
	}
	_ = conn.Close()
	return nil, errors.New("it is not connected: a listener or client may have set it up and lost its peer")
}

func fileListener(f *os.File) (net.Listener, error) {
	local, listens, err := inspect(f)
	switch {
	case err != nil:
		return nil, err
	case !listens:
		return nil, errors.New("it is not a listening socket: with systemd, set Accept=no, else use FileConn")
	}
	if ln, err := fileVsockListener(f, local); ln != nil || err != nil {
		return ln, err
	}
	return net.FileListener(f) // a copy
}

// inspect returns the local address of a stream socket, and whether it listens.
func inspect(f *os.File) (local unix.Sockaddr, listens bool, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, false, err
	}
	var answer error
	err = raw.Control(func(fd uintptr) { local, listens, answer = inspectFD(int(fd)) })
	return local, listens, errors.Join(err, answer)
}

func inspectFD(fd int) (local unix.Sockaddr, listens bool, err error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if errors.Is(err, unix.ENOTSOCK) {
		return nil, false, fmt.Errorf("it is no socket: %w", err)
	} else if err != nil {
		return nil, false, os.NewSyscallError("getsockopt", err)
	}
	if kind != unix.SOCK_STREAM {
		return nil, false, errors.New("it is a socket for messages: a stream is needed")
	}
	if local, err = unix.Getsockname(fd); err != nil {
		return nil, false, os.NewSyscallError("getsockname", err)
	}
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return local, n != 0, os.NewSyscallError("getsockopt", err)
}
