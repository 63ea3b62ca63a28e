// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

// Package guest_test is the guest's end of the tests in machines.
package guest_test

import (
	"flag"
	"io"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/vmtest/qemu"
	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
)

var (
	host  = flag.Uint("host", 0, "CID of the host")
	await = flag.Uint("await", 0, "wait for a vsock device with this CID")

	isAgent = flag.Bool("agent", false, "be an agent, and no test")
)

func TestMain(m *testing.M) {
	if flag.Parse(); *isAgent {
		runAgent()
	}
	goleak.VerifyTestMain(m)
}

func TestGuest(t *testing.T) {
	qemu.AwaitVsock(uint32(*await))
	require.True(t, t.Run("Stream", testStream)) // else the other end is lost
	require.True(t, t.Run("Network", testNetwork))
	require.True(t, t.Run("Docker", testDocker))
}

// testStream: who a peer is, and how streams end, either end first.
func testStream(t *testing.T) {
	ln, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, talk.GuestPort, nil)
	require.NoError(t, err)
	defer ln.Close() //nolint:errcheck // nothing is left in it

	conn := dialHost(t, talk.HostPort)
	require.NoError(t, talk.Ask(conn, talk.Long))
	_, err = conn.Write([]byte{0})
	require.ErrorIs(t, err, unix.EPIPE, "after CloseWrite")
	require.NoError(t, conn.Close())

	conn = accept(t, ln, uint32(*host))
	require.NoError(t, talk.Ask(conn, talk.Long))
	require.NoError(t, conn.Close())

	// A machine that dials itself, by whichever address, is CID 1: never the host,
	// unless that is CID 1 too.
	for _, cid := range ownCIDs(t) {
		conn, err := vsock.DialContext(t.Context(), cid, talk.GuestPort, nil)
		require.NoError(t, err)
		require.NoError(t, accept(t, ln, unix.VMADDR_CID_LOCAL).Close())
		require.NoError(t, conn.Close())
	}
	_, err = vsock.DialContext(t.Context(), uint32(*host), talk.NobodysPort, nil)
	require.ErrorIs(t, err, unix.ECONNRESET, "nobody listens there")
}

// ownCIDs returns the addresses by which a machine can dial itself.
func ownCIDs(t *testing.T) []uint32 {
	t.Helper()
	own, err := vsock.ContextID()
	require.NoError(t, err)
	return []uint32{unix.VMADDR_CID_LOCAL, own}
}

func accept(t *testing.T, ln *vsock.Listener, peer uint32) *vsock.Conn {
	t.Helper()
	require.NoError(t, ln.SetDeadline(time.Now().Add(talk.Patience)))
	conn, err := ln.Accept()
	require.NoError(t, err)
	require.Equal(t, peer, conn.RemoteAddr().(*vsock.Addr).ContextID)
	return conn.(*vsock.Conn)
}

// dialHost connects to the host, which listens sooner or later.
func dialHost(t *testing.T, port uint32) (conn *vsock.Conn) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		conn, err = vsock.DialContext(t.Context(), uint32(*host), port, nil)
		return err == nil
	}, talk.Patience, time.Second, "the host has to listen on port %d", port)
	return conn
}

// refusesInsiders: who listens on a port has nothing to say to whoever is in the
// guest, be it before or after a greeting. It returns how many have tried.
func refusesInsiders(t *testing.T, port uint32, greeting string) (tries int) {
	t.Helper()
	if *host == unix.VMADDR_CID_LOCAL {
		return 0 // they are what the host is
	}
	for _, cid := range ownCIDs(t) {
		conn, err := vsock.DialContext(t.Context(), cid, port, nil)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(talk.Patience)))
		_, _ = io.WriteString(conn, greeting) // it may be too late for that
		got, err := io.ReadAll(conn)
		require.Empty(t, got, "CID %d", cid)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, conn.Close())
		tries++
	}
	return tries
}

// tellHost keeps step with the host.
func tellHost(t *testing.T, port uint32) {
	t.Helper()
	conn := dialHost(t, port)
	require.NoError(t, talk.Ask(conn, talk.Short))
	require.NoError(t, conn.Close())
}
