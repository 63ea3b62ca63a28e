// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package socketbridge

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Vsock is Linux's.
func fileVsockConn(*os.File, unix.Sockaddr) (net.Conn, error)         { return nil, nil }
func fileVsockListener(*os.File, unix.Sockaddr) (net.Listener, error) { return nil, nil }
