// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// OnWine reports whether this Windows is wine.
func OnWine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

// ServePipe readies the listener of a named pipe for clients. wine lets them connect
// to the first instance of the pipe, which go-winio never serves; on Windows it is
// there for the name only. So there one client takes it, until t ends or free is called.
func ServePipe(t testing.TB, ln net.Listener) (free func()) {
	t.Helper()
	if !OnWine() {
		return func() {}
	}
	path, err := windows.UTF16PtrFromString(ln.Addr().String())
	require.NoError(t, err)
	client, err := windows.CreateFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, 0, 0)
	require.NoError(t, err)
	free = sync.OnceFunc(func() { _ = windows.CloseHandle(client) })
	t.Cleanup(free)
	return free
}
