// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package socketbridge

import "net"

// AllowVM does not ask these elsewhere than on Windows.
func parseVM(string) (string, error) { return "", unsupported("Hyper-V sockets") }
func vmOf(net.Addr) (string, error)  { return "", unsupported("Hyper-V sockets") }
