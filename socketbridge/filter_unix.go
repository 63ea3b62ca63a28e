// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package socketbridge

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// unixSocket returns an error unless fd is a unix socket: others answer questions
// for credentials, too.
func unixSocket(fd int) error {
	local, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if _, ok := local.(*unix.SockaddrUnix); !ok {
		return errors.New("it is no unix socket")
	}
	return nil
}
