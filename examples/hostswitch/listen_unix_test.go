// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"context"
	"io/fs"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
)

// settled checks that only this user may connect to a listener, and returns where it is.
func settled(t *testing.T, ln net.Listener) string {
	info, err := os.Stat(ln.Addr().String())
	if err == nil && info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v has mode %v", ln.Addr(), info.Mode())
	} else if err != nil {
		t.Error(err)
	}
	return ln.Addr().String()
}

func dialPipe(context.Context, string) (net.Conn, error) { panic("there are none") }

// A socket that a run left that crashed is replaced.
func TestListenWhereOneCrashed(t *testing.T) {
	where, _, _ := places(t)
	path := where[len("unix:"):]
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	left.SetUnlinkOnClose(false)
	require.NoError(t, left.Close())
	open, err := service.Local("linux", where, "hostswitch", service.LocalForms)
	require.NoError(t, err)
	ln, err := open()
	require.NoError(t, err)
	require.Equal(t, path, settled(t, ln))
	require.NoError(t, ln.Close())
}
