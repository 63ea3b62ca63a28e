// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

// These tests need real AF_VSOCK with vsock_loopback, where CID 1 is this machine;
// internal/vmtest runs them in a machine that has it.

package socketbridge_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func vsockPair(t testing.TB) (far, near socketbridge.HalfCloser) {
	t.Helper()
	ln, err := vsock.ListenContextID(0xffffffff, 6660, nil)
	require.NoError(t, err)
	dialed, err := vsock.DialContext(t.Context(), 1, 6660, nil)
	require.NoError(t, err)
	accepted, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	t.Cleanup(func() { _, _ = dialed.Close(), accepted.Close() })
	return dialed, accepted.(socketbridge.HalfCloser)
}

// inheritedPair is a pair whose near end was inherited, so that it is no vsock.Conn.
func inheritedPair(t testing.TB) (far, near socketbridge.HalfCloser) {
	t.Helper()
	far, accepted := vsockPair(t)
	raw, err := accepted.(*vsock.Conn).SyscallConn()
	require.NoError(t, err)
	var fd int
	var dup error
	require.NoError(t, raw.Control(func(old uintptr) { fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }))
	require.NoError(t, dup)
	require.NoError(t, accepted.Close())
	conn, err := socketbridge.FileConn(os.NewFile(uintptr(fd), "inherited"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return far, conn.(socketbridge.HalfCloser)
}

// joinVsock runs a pipe from vsock to a kind of connection, or the other way round.
func joinVsock(t testing.TB, other string, turned bool) *joint {
	t.Helper()
	j := &joint{done: make(chan result, 1)}
	j.client, j.a = vsockPair(t)
	switch other {
	case "vsock":
		j.server, j.b = vsockPair(t)
	case "inherited":
		j.server, j.b = inheritedPair(t)
	default:
		j.server, j.b = kind(t, other)
	}
	if turned {
		j.client, j.a, j.server, j.b = j.server, j.b, j.client, j.a
	}
	j.start(t)
	return j
}

func everyVsock(t *testing.T, test func(t *testing.T, other string, turned bool)) {
	for _, other := range []string{"vsock", "inherited", "unix", "tcp", "memory", "tls"} {
		for _, turned := range []bool{false, true} {
			name := "vsock-" + other
			if turned {
				name = other + "-vsock"
			}
			t.Run(name, func(t *testing.T) { test(t, other, turned) })
		}
	}
}

// TestIntegrationVsockPipeCarriesHalfClose: request, CloseWrite, reply (FAILURES 25).
func TestIntegrationVsockPipeCarriesHalfClose(t *testing.T) {
	everyVsock(t, func(t *testing.T, other string, turned bool) {
		for _, size := range []int{0, 1, 8<<10 + 1, 1 << 20} {
			j := joinVsock(t, other, turned)
			sent := send(j.client, noise(size))
			got, err := io.ReadAll(j.server)
			require.NoError(t, err)
			require.True(t, bytes.Equal(noise(size), got))
			require.NoError(t, <-sent)
			sent = send(j.server, noise(size))
			got, err = io.ReadAll(j.client)
			require.NoError(t, err)
			require.True(t, bytes.Equal(noise(size), got))
			require.NoError(t, <-sent)
			r := j.result(t)
			require.NoError(t, r.err)
			require.EqualValues(t, size, r.AToB)
			require.EqualValues(t, size, r.BToA)
		}
	})
}

// TestIntegrationVsockPipeIsAsGoodAsAConnection, as far as package nettest knows.
func TestIntegrationVsockPipeIsAsGoodAsAConnection(t *testing.T) {
	for _, other := range []string{"vsock", "inherited", "unix", "tcp", "memory"} {
		for _, turned := range []bool{false, true} {
			t.Run(fmt.Sprint(other, turned), func(t *testing.T) {
				conform(t, func() *joint { return joinVsock(t, other, turned) })
			})
		}
	}
}

// TestIntegrationVsockPipeKeepsEveryByteInOrder plays schedules, as for other connections.
func TestIntegrationVsockPipeKeepsEveryByteInOrder(t *testing.T) {
	everyVsock(t, func(t *testing.T, other string, turned bool) {
		playSeeds(t, func() *joint { return joinVsock(t, other, turned) })
	})
}

// TestIntegrationVsockPipeDeliversAnEarlyAnswer of who closes before all was read.
func TestIntegrationVsockPipeDeliversAnEarlyAnswer(t *testing.T) {
	everyVsock(t, func(t *testing.T, other string, turned bool) {
		early(t, joinVsock(t, other, turned))
	})
}

// TestIntegrationVsockPipeTellsOfWhatItThrowsAway: a client is gone, and bytes for it are
// there, which a CloseRead hides.
func TestIntegrationVsockPipeTellsOfWhatItThrowsAway(t *testing.T) {
	for range 100 {
		j := &joint{done: make(chan result, 1)}
		j.client, j.a = unixPair(t)
		j.server, j.b = vsockPair(t)
		_, err := j.server.Write([]byte("x"))
		require.NoError(t, err)
		raw, err := j.b.(*vsock.Conn).SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Read(func(fd uintptr) bool { // until it is there
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
			return n > 0 || err == nil
		}))
		require.NoError(t, j.client.Close())
		j.start(t)
		require.ErrorIs(t, j.result(t).err, syscall.EPIPE)
	}
}

// TestIntegrationVsockPipeNoticesDeath of a peer that had sent its EOF before.
func TestIntegrationVsockPipeNoticesDeath(t *testing.T) {
	for _, other := range []string{"vsock", "unix", "tcp", "tls", "inherited"} {
		j := joinVsock(t, other, other == "inherited")
		require.NoError(t, j.client.CloseWrite())
		_, err := j.server.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, j.client.Close())
		require.NoError(t, j.result(t).err, other)
	}
}

// TestIntegrationVsockPipeCancel: idle, and while blocked.
func TestIntegrationVsockPipeCancel(t *testing.T) {
	everyVsock(t, func(t *testing.T, other string, turned bool) {
		for _, blocked := range []bool{false, true} {
			j := joinVsock(t, other, turned)
			if blocked {
				block(t, j.client)
			}
			j.cancel(nil)
			require.Error(t, j.result(t).err)
		}
	})
}

// TestIntegrationVsockPipeLeavesNoDescriptor (FAILURES 26).
func TestIntegrationVsockPipeLeavesNoDescriptor(t *testing.T) {
	before := openFiles(t)
	for range 200 {
		j := joinVsock(t, "unix", false)
		sent := send(j.client, noise(100_000))
		n, err := drained(j.server)
		require.NoError(t, err)
		require.EqualValues(t, 100_000, n)
		require.NoError(t, <-sent)
		require.NoError(t, j.server.Close())
		require.NoError(t, j.result(t).err)
		require.NoError(t, j.client.Close())
	}
	require.Equal(t, before, openFiles(t))
}

// TestIntegrationVsockLoopIsAPipe, as TestLoopIsAPipe has it of other sockets.
func TestIntegrationVsockLoopIsAPipe(t *testing.T) {
	engine = socketbridge.PipeOnLoop
	t.Cleanup(func() { engine = socketbridge.PipeContext })
	for name, test := range map[string]func(*testing.T){
		"CarriesHalfClose":        TestIntegrationVsockPipeCarriesHalfClose,
		"IsAsGoodAsAConnection":   TestIntegrationVsockPipeIsAsGoodAsAConnection,
		"KeepsEveryByteInOrder":   TestIntegrationVsockPipeKeepsEveryByteInOrder,
		"DeliversAnEarlyAnswer":   TestIntegrationVsockPipeDeliversAnEarlyAnswer,
		"TellsOfWhatItThrowsAway": TestIntegrationVsockPipeTellsOfWhatItThrowsAway,
		"NoticesDeath":            TestIntegrationVsockPipeNoticesDeath,
		"Cancel":                  TestIntegrationVsockPipeCancel,
		"LeavesNoDescriptor":      TestIntegrationVsockPipeLeavesNoDescriptor,
	} {
		t.Run(name, test)
	}
}
