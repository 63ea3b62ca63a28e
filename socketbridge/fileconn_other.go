// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package socketbridge

import (
	"net"
	"os"
)

func fileConn(*os.File) (net.Conn, error)         { return nil, unsupported("inherited sockets") }
func fileListener(*os.File) (net.Listener, error) { return nil, unsupported("inherited sockets") }
