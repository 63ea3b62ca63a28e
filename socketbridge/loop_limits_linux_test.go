// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// limitFiles sets the limit of descriptors.
func limitFiles(t *testing.T, n int) (restore func()) {
	t.Helper()
	var limit unix.Rlimit
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit))
	few := unix.Rlimit{Cur: uint64(n), Max: limit.Max}
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &few, nil))
	restore = sync.OnceFunc(func() { _ = unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil) })
	t.Cleanup(restore)
	return restore
}

// TestLoopNeedsDescriptors, and what has none to spare is joined as by Pipe.
func TestLoopNeedsDescriptors(t *testing.T) {
	use(t, socketbridge.PipeAsBridge)
	for spare := range 4 {
		j := &joint{done: make(chan result, 1)}
		j.client, j.a = unixPair(t)
		j.server, j.b = tcpPair(t)
		before := openFiles(t)
		next, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // none before it is free
		require.NoError(t, err)
		require.NoError(t, unix.Close(next))
		restore := limitFiles(t, next+spare)
		j.start(t)
		carries(t, j, restore)
		require.Eventually(t, func() bool { return openFiles(t) == before-3 }, generous, time.Millisecond)
		require.NoError(t, j.client.Close())
	}
}

// TestLoopWithoutDescriptors copies when no pipe can be made.
func TestLoopWithoutDescriptors(t *testing.T) {
	use(t, socketbridge.PipeOnLoop)
	j := join(t, "unix", "tcp")
	exchange(t, j.client, j.server)
	carries(t, j, limitFiles(t, 1))
}

// carries requires that j does, and ends it. That done, there are descriptors again.
func carries(t *testing.T, j *joint, restore func()) {
	t.Helper()
	sent := send(j.client, noise(1<<20))
	got, err := io.ReadAll(j.server)
	restore()
	require.NoError(t, err)
	require.True(t, bytes.Equal(noise(1<<20), got))
	require.NoError(t, <-sent)
	require.NoError(t, j.server.Close())
	require.NoError(t, j.result(t).err)
}

// TestLoopIdleTimeout: what carries something is not closed, and then it is.
func TestLoopIdleTimeout(t *testing.T) {
	const bound = 300 * time.Millisecond
	path := echo(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path), IdleTimeout: bound}
	at, _ := bridge(t, b)
	conn, other := dialUnix(t, at), dialUnix(t, at)
	var last time.Time // when the last exchange that succeeded began
	var err error
	for began := time.Now(); err == nil && time.Since(began) < 2*bound; {
		start := time.Now()
		if _, err = conn.Write([]byte("x")); err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		if err == nil {
			last = start
		}
	}
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	require.Error(t, err)
	require.GreaterOrEqual(t, time.Since(last), bound)
	_, err = other.Read(make([]byte, 1))
	require.Error(t, err)
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 0 })
	require.EqualValues(t, 2, b.Stats().Broken)
}
