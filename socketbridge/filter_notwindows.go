// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package socketbridge

import "net"

// parseVM leaves to vmOf what there is to say.
func parseVM(id string) (string, error) { return id, nil }

// vmOf needs Windows.
func vmOf(net.Addr) (string, error) { return "", unsupported("Hyper-V sockets") }
