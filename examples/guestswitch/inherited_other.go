// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
)

func inherited(int) (net.Conn, error) {
	return nil, fmt.Errorf("fd:// on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
