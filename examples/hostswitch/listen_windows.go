// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"

	"github.com/Microsoft/go-winio"
)

// listenVsock takes connections of any guest on this host. A daemon listens for
// the one VM that it knows instead.
func listenVsock(port uint32) (net.Listener, error) {
	return winio.ListenHvsock(&winio.HvsockAddr{
		VMID:      winio.HvsockGUIDChildren(),
		ServiceID: winio.VsockServiceID(port),
	})
}
