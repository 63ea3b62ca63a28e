// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package hvsock

import (
	"context"
	"net"
	"testing"
)

// dialTCP has the system's own connection in the place of go-winio's.
func dialTCP(ctx context.Context, _ *testing.T, to *net.TCPAddr) (*Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return nil, err
	}
	return newConn(conn.(*net.TCPConn)), nil
}
