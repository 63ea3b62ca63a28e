// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

// soakProcess tells the test that it is in the process of its own.
const soakProcess = "GUESTNET_SOAK"

// FAILURES 14: 1,000 networks come and go, and the process is as it was: not one
// goroutine or descriptor more, less than 1 MB of heap, and the same host port
// every time.
//
// In a process of its own, whose heap no other test has used.
func TestSoak(t *testing.T) {
	if os.Getenv(soakProcess) == "" {
		self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSoak$", "-test.v")
		self.Env = append(os.Environ(), soakProcess+"=1")
		out, err := self.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestSoak")
		return
	}
	const cycles = 1000
	server := hostTCP(t, echo)
	local := freePort(t)
	cycle := func(t *testing.T) {
		sw, err := hostswitch.New(hostswitch.Config{})
		require.NoError(t, err)
		g := attach(t, sw, 2)
		g.lease(t)
		require.Equal(t, "out", exchange(t, g.dial(t, server), "out"))
		ln, err := g.ListenTCP(netip.AddrPortFrom(g.addr, 80))
		require.NoError(t, err)
		served := during(func() {
			if c, err := ln.Accept(); err == nil {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}
		})
		f, err := sw.Expose(t.Context(), hostswitch.Forward{Local: local, Remote: ":80"})
		require.NoError(t, err, "the same port every time")
		require.Equal(t, local, f.Local)
		require.Equal(t, "in", hostExchange(t, local, "in"))
		<-served
		require.NoError(t, sw.Close())
		require.ErrorIs(t, await(t, g.attached, "Attach"), hostswitch.ErrClosed)
		g.unplug()
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // what a finalizer or pool held
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	// In tests of their own, so that what the cycles leave for their Cleanup to do
	// is done.
	batch := func(t *testing.T) {
		for range 50 {
			cycle(t)
		}
	}
	t.Run("warm up", batch)
	before, heapBefore := measure(), heap()
	for range cycles / 50 {
		t.Run("50 cycles", batch)
	}
	settles(t, before)
	grown := heap() - heapBefore
	t.Logf("%d cycles: heap in use grew by %d bytes, %+v", cycles, grown, measure())
	require.Less(t, grown, int64(1<<20))
}
