// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package socketbridge

import "net"

// Named pipes need Windows.
func listenPipe(string, string) (net.Listener, error) { return nil, unsupported("named pipes") }
func userSID() (string, error)                        { return "", unsupported("named pipes") }
