// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// unixPair returns both ends of a unix connection.
func unixPair(t testing.TB) (near, far socketbridge.HalfCloser) {
	t.Helper()
	return connect(t, "unix", filepath.Join(t.TempDir(), "s"))
}

func connect(t testing.TB, network, address string) (near, far socketbridge.HalfCloser) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	require.NoError(t, err)
	dialed, err := new(net.Dialer).DialContext(t.Context(), network, ln.Addr().String())
	require.NoError(t, err)
	accepted, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	t.Cleanup(func() { _, _ = dialed.Close(), accepted.Close() })
	return dialed.(socketbridge.HalfCloser), accepted.(socketbridge.HalfCloser)
}

func TestPipeCarriesBothWays(t *testing.T) {
	client, a := unixPair(t)
	b, server := unixPair(t)
	done := make(chan error, 1)
	go func() { done <- socketbridge.Pipe(a, b) }()
	_, err := io.WriteString(client, "hello")
	require.NoError(t, err)
	require.NoError(t, client.CloseWrite())
	got, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	_, err = io.WriteString(server, "bye")
	require.NoError(t, err)
	require.NoError(t, server.Close())
	got, err = io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "bye", string(got))
	require.NoError(t, <-done)
}
