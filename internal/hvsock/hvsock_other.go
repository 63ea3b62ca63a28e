// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package hvsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/Microsoft/go-winio/pkg/guid"
)

func unsupported() error {
	return fmt.Errorf("hyper-v sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// VMs needs Windows.
func VMs() ([]guid.GUID, error) { return nil, unsupported() }

// Dial needs Windows.
func Dial(context.Context, guid.GUID, uint32) (net.Conn, error) { return nil, unsupported() }

// Listen needs Windows.
func Listen(guid.GUID, uint32) (net.Listener, error) { return nil, unsupported() }
