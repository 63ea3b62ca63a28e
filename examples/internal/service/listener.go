// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// Listener returns the socket that the service manager listens on for this
// process, as sd_listen_fds(3) has it, and nil if there is none.
func Listener() (net.Listener, error) {
	count := os.Getenv("LISTEN_FDS")
	if count == "" || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil // or they were meant for the process that started this one
	}
	if count != "1" {
		return nil, fmt.Errorf("LISTEN_FDS is %s, and this program serves one socket: leave one ListenStream= in its .socket unit", count)
	}
	return socketbridge.FileListener(os.NewFile(firstFD, "the socket of the service manager"))
}
