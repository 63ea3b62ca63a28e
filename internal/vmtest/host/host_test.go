// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

// Package host_test is the host's end of the tests in machines.
package host_test

import (
	"flag"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
)

var guest = flag.Uint("guest", 0, "CID of the guest")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHost(t *testing.T) {
	require.True(t, t.Run("Stream", testStream)) // else the other end is lost
	require.True(t, t.Run("Network", testNetwork))
	require.True(t, t.Run("Docker", testDocker))
}

// testStream: who a peer is, and how streams end, either end first.
func testStream(t *testing.T) {
	answerGuest(t, talk.HostPort)
	conn, err := vsock.DialContext(t.Context(), uint32(*guest), talk.GuestPort, nil)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // Answer has sent everything
	require.NoError(t, talk.Answer(conn))

	_, err = vsock.DialContext(t.Context(), uint32(*guest), talk.NobodysPort, nil)
	require.ErrorIs(t, err, unix.ECONNRESET, "nobody listens there")
}

// answerGuest waits for the guest to connect and ask.
func answerGuest(t *testing.T, port uint32) {
	t.Helper()
	ln, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, port, nil)
	require.NoError(t, err)
	defer ln.Close()                                                  //nolint:errcheck // nothing is left in it
	require.NoError(t, ln.SetDeadline(time.Now().Add(talk.Patience))) // the guest's machine may still boot
	conn, err := ln.Accept()
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // Answer has sent everything
	require.Equal(t, uint32(*guest), conn.RemoteAddr().(*vsock.Addr).ContextID)
	require.NoError(t, talk.Answer(conn))
}
