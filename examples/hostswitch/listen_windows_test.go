// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"testing"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"github.com/rancher-sandbox/guestnet/internal/house"
)

// settled returns where a listener is. Under wine clients get the first instance of a
// pipe, which nobody serves; it is taken before any of them comes.
func settled(t *testing.T, ln net.Listener) string {
	if house.OnWine() {
		path, err := windows.UTF16PtrFromString(ln.Addr().String())
		if err != nil {
			t.Error(err)
		}
		h, err := windows.CreateFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, 0, 0)
		if err == nil {
			t.Cleanup(func() { _ = windows.CloseHandle(h) })
		}
	}
	return ln.Addr().String()
}

func dialPipe(ctx context.Context, address string) (net.Conn, error) {
	return winio.DialPipeContext(ctx, address)
}
