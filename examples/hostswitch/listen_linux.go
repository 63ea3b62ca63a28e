// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// listenVsock takes connections of any guest on this host.
func listenVsock(port uint32) (net.Listener, error) {
	return vsock.ListenContextID(unix.VMADDR_CID_ANY, port, nil)
}
