// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

// A peer that aborts its connect, or a system that has run out, ends Serve on no
// system. Windows says these numbers, through listeners that are not of package net.
func TestServeWaitsOutWhatWindowsSays(t *testing.T) {
	for number, name := range map[syscall.Errno]string{
		64:    "ERROR_NETNAME_DELETED",
		1236:  "ERROR_CONNECTION_ABORTED",
		1450:  "ERROR_NO_SYSTEM_RESOURCES",
		10024: "WSAEMFILE",
		10053: "WSAECONNABORTED",
		10054: "WSAECONNRESET",
		10055: "WSAENOBUFS",
	} {
		t.Run(name, func(t *testing.T) {
			sw := newSwitch(t, hostswitch.Config{})
			inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			ln := &fakeListener{Listener: inner, errors: []error{
				number,
				os.NewSyscallError("acceptex", number),
				&net.OpError{Op: "accept", Net: "hvsock", Err: os.NewSyscallError("acceptex", number)},
			}}
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- sw.Serve(ctx, ln) }()
			c, err := new(net.Dialer).DialContext(ctx, "tcp", inner.Addr().String())
			require.NoError(t, err)
			defer c.Close() //nolint:errcheck // the end
			eventually(t, func() bool { return len(sw.Snapshot().Ports) == 1 }, "the guest that came after the errors")
			cancel()
			require.NoError(t, await(t, served, "Serve"))
		})
	}
	const unknown = syscall.Errno(10022) // WSAEINVAL: it does not listen
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	err = newSwitch(t, hostswitch.Config{}).Serve(t.Context(), &fakeListener{Listener: inner, errors: []error{unknown}})
	require.ErrorIs(t, err, unknown)
}
