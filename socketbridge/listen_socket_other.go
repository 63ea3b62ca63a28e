// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package socketbridge

import (
	"fmt"
	"io/fs"
	"net"
)

// listenUnix needs file permissions and locks of unix.
func listenUnix(string, fs.FileMode) (net.Listener, error) {
	return nil, fmt.Errorf("socketbridge: %w", unsupported("ListenUnix"))
}
