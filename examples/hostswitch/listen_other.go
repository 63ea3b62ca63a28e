// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !windows

package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
)

func listenVsock(uint32) (net.Listener, error) {
	return nil, fmt.Errorf("hostswitch: vsock on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
