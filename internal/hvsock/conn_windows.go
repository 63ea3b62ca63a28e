// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// What a listener's Accept returns.
var _ rawConn = (*winio.HvsockConn)(nil)

// A file is what go-winio makes of a handle: input and output that Close and
// deadlines end.
type file interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// A dialled connection: go-winio has a type for connections, but no way to make one
// of a socket.
type dialled struct {
	file
	remote net.Addr
	socket windows.Handle
}

func newDialled(socket windows.Handle, remote net.Addr) (*Conn, error) {
	f, err := winio.NewOpenFile(socket)
	if err != nil {
		return nil, err
	}
	file, ok := f.(file)
	if !ok {
		return nil, errors.ErrUnsupported // a go-winio without deadlines
	}
	return newConn(&dialled{file: file, remote: remote, socket: socket}), nil
}

func (d *dialled) CloseWrite() error {
	return os.NewSyscallError("shutdown", windows.Shutdown(d.socket, windows.SHUT_WR))
}

// LocalAddr is a zero address: which of its own addresses the host has used,
// Hyper-V does not say in a way that could be dialled.
func (*dialled) LocalAddr() net.Addr { return &winio.HvsockAddr{} }

// RemoteAddr returns the address that was dialled, a *winio.HvsockAddr.
func (d *dialled) RemoteAddr() net.Addr { return d.remote }

func (d *dialled) SetDeadline(t time.Time) error {
	return errors.Join(d.SetReadDeadline(t), d.SetWriteDeadline(t))
}
