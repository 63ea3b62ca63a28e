// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// inherited returns the connection behind a descriptor, which is used up by it:
// unix, TCP or vsock. The standard library does not know the last.
func inherited(fd int) (net.Conn, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, fmt.Errorf("fd %d: %w", fd, err)
	}
	if kind != unix.SOCK_STREAM {
		return nil, fmt.Errorf("fd %d is no stream socket", fd)
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("fd %d: %w", fd, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // before NewFile, which then has it polled
		return nil, fmt.Errorf("fd %d: %w", fd, err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("fd %d", fd))
	if at, ok := local.(*unix.SockaddrVM); ok {
		c := &vsockConn{File: f, local: &vsock.Addr{ContextID: at.CID, Port: at.Port}, remote: &vsock.Addr{}}
		if peer, err := unix.Getpeername(fd); err == nil {
			if at, ok := peer.(*unix.SockaddrVM); ok {
				c.remote = &vsock.Addr{ContextID: at.CID, Port: at.Port}
			}
		}
		return c, nil
	}
	defer func() { _ = f.Close() }() // FileConn makes a copy
	return net.FileConn(f)
}

// vsockConn is a file that is a vsock connection.
type vsockConn struct {
	*os.File
	local, remote net.Addr
}

func (c *vsockConn) LocalAddr() net.Addr  { return c.local }
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }
