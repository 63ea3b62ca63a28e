// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
)

// TestBridgeDoesNotStart without what it needs; a supervisor is told not to try again.
func TestBridgeDoesNotStart(t *testing.T) {
	all, target := socketbridge.AllowAll(), make(memTarget).Dial
	for want, b := range map[string]*socketbridge.Bridge{
		"Filter is nil: say who":            {Dial: target},
		"Dial is nil: say where":            {Filter: all},
		"is not the GUID of a VM":           {Filter: socketbridge.AllowVMBy(vmOf, "x"), Dial: target},
		"filter 1 of AnyOf is nil":          {Filter: socketbridge.AnyOf(nil), Dial: target},
		"refuses everyone: CID 4294967295 ": {Filter: socketbridge.AllowCID(0xffffffff), Dial: target},
	} {
		ln := newMemListener()
		opened := false
		b.Listen = func(context.Context) (net.Listener, error) { opened = true; return ln, nil }
		for _, err := range []error{b.Serve(t.Context(), ln), b.Run(t.Context())} {
			require.ErrorContains(t, err, want)
			require.True(t, isPermanent(err), want)
		}
		<-ln.closed // by Serve, which owns it
		require.False(t, opened, want)
	}
	b := &socketbridge.Bridge{Filter: all, Dial: target}
	require.ErrorContains(t, b.Serve(t.Context(), nil), "nil listener")
	require.ErrorContains(t, b.Run(t.Context()), "Listen is nil: set it for Run")
	require.True(t, isPermanent(b.Run(t.Context())))
}

func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// TestRun opens the listener; what Listen says is not lost.
func TestRun(t *testing.T) {
	why := errors.New("no such port")
	ctx, cancel := context.WithCancel(t.Context())
	var ln net.Listener
	var failure error
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: make(memTarget).Dial,
		Listen: func(context.Context) (net.Listener, error) { return ln, failure }}
	failure = why
	require.ErrorIs(t, b.Run(ctx), why)
	require.False(t, isPermanent(b.Run(ctx)))
	failure = errors.ErrUnsupported
	require.True(t, isPermanent(b.Run(ctx)), "another attempt is no use")
	failure = nil
	require.ErrorContains(t, b.Run(ctx), "nil listener")
	cancel()
	failure = why
	require.NoError(t, b.Run(ctx), "it was told to end")
	failure, ln = nil, newMemListener()
	require.NoError(t, b.Run(ctx), "it was told to end before it began")
	<-ln.(*memListener).closed
}

// TestHalfCloseGoesThrough: a request that ends, and then the answer.
func TestHalfCloseGoesThrough(t *testing.T) {
	target := make(memTarget, 1)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial}
	client := serve(t, b).ln.connect(cid(2))
	server := <-target
	say(t, client, "question")
	hear(t, server, "question")
	say(t, server, "answer")
	hear(t, client, "answer")
	<-counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 0 })
	require.Equal(t, socketbridge.BridgeStats{Accepted: 1, ToTarget: 8, ToClient: 6}, b.Stats())
}

// counted waits until the counters are as they should be.
func counted(t *testing.T, b *socketbridge.Bridge, ok func(socketbridge.BridgeStats) bool) <-chan struct{} {
	t.Helper()
	require.Eventually(t, func() bool { return ok(b.Stats()) }, time.Minute, time.Millisecond)
	done := make(chan struct{})
	close(done)
	return done
}

// TestStrangersNeverReachTheTarget: FAILURES 10. The guest itself, other guests,
// and what has no CID are closed before the target is dialled. Real vsock is in
// internal/vmtest.
func TestStrangersNeverReachTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		target := make(memTarget, 100)
		b := &socketbridge.Bridge{Filter: socketbridge.AllowCID(2), Dial: target.Dial, MaxConns: 1, Logger: slog.New(&log)}
		r := serve(t, b)
		for _, stranger := range []net.Addr{cid(1), cid(3), cid(42), cid(0), cid(0xffffffff), nil, text{"vsock", "host(2):1"}, &net.TCPAddr{}} {
			hear(t, r.ln.connect(stranger), "")
		}
		synctest.Wait()
		require.Empty(t, target)
		require.Equal(t, socketbridge.BridgeStats{Refused: 8}, b.Stats())

		client := r.ln.connect(cid(2))
		say(t, <-target, "in")
		hear(t, client, "in")

		r.stop()
		require.NoError(t, client.Close())
		require.NoError(t, r.ended())
		lines := log.atLeast(slog.LevelWarn)
		require.Len(t, lines, 2)
		require.Contains(t, lines[0], "socketbridge: refused a peer peer=vsock local(1):1024 error=")
		require.Contains(t, lines[0], "its CID is 1, allowed is [2]")
		require.Contains(t, lines[1], "refused a peer, not logged more=7")
	})
}

// TestRefusalsAreLoggedAtABoundedRate: a line in 10 s, which tells of the others.
func TestRefusalsAreLoggedAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		b := &socketbridge.Bridge{Filter: refuse("go away"), Dial: make(memTarget).Dial, Logger: slog.New(&log)}
		r := serve(t, b)
		for range 1000 {
			hear(t, r.ln.connect(cid(3)), "")
		}
		<-time.After(10 * time.Second)
		hear(t, r.ln.connect(cid(3)), "")
		r.stop()
		require.NoError(t, r.ended())
		lines := log.atLeast(slog.LevelWarn)
		require.Len(t, lines, 2)
		require.Contains(t, lines[0], "go away")
		require.Contains(t, lines[1], "more=999")
		require.EqualValues(t, 1001, b.Stats().Refused)
	})
}

// TestConnectionsWithoutCloseWrite: FAILURES 11. They are closed, with an error that
// says why, and the Bridge goes on.
func TestConnectionsWithoutCloseWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		target, broken := make(memTarget, 1), false
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Logger: slog.New(&log),
			Dial: func(ctx context.Context) (net.Conn, error) {
				conn, err := target.Dial(ctx)
				if broken {
					conn = oneWay{conn}
				}
				return conn, err
			}}
		r := serve(t, b)
		client, server := memPair(cid(2))
		r.ln.next <- oneWay{server}
		hear(t, client, "")
		require.Empty(t, target, "what cannot be joined needs no target")

		broken = true
		client = r.ln.connect(cid(2))
		hear(t, <-target, "")
		hear(t, client, "")
		synctest.Wait()
		require.Equal(t, socketbridge.BridgeStats{Accepted: 2, FailedDials: 2}, b.Stats())

		broken = false
		client = r.ln.connect(cid(2))
		say(t, <-target, "lives")
		hear(t, client, "lives")
		require.NoError(t, client.Close())
		r.stop()
		require.NoError(t, r.ended())
		require.Contains(t, log.atLeast(slog.LevelWarn)[0], "oneWay has no CloseWrite")
	})
}

// TestFailedDials: the client is closed, the log says why, and the Bridge goes on.
func TestFailedDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Logger: slog.New(&log), Dial: socketbridge.DialUnix("/nonexistent/docker.sock")}
		r := serve(t, b)
		for range 3 {
			hear(t, r.ln.connect(cid(2)), "")
		}
		synctest.Wait()
		require.Equal(t, socketbridge.BridgeStats{Accepted: 3, FailedDials: 3}, b.Stats())
		r.stop()
		require.NoError(t, r.ended())
		lines := log.atLeast(slog.LevelWarn)
		require.Len(t, lines, 2)
		require.Contains(t, lines[1], "not logged more=2")
		require.Contains(t, lines[0], "peer=vsock host(2):1024")
		require.Contains(t, lines[0], "/nonexistent/docker.sock")
	})
	synctest.Test(t, func(t *testing.T) {
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: func(context.Context) (net.Conn, error) { return nil, nil }}
		hear(t, serve(t, b).ln.connect(cid(2)), "")
	})
}

// TestStatsAreLive, and can be read by programs and in logs.
func TestStatsAreLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := make(memTarget, 1)
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial}
		client := serve(t, b).ln.connect(cid(2))
		server := <-target
		go func() { _, _ = io.WriteString(client, strings.Repeat("x", 1000)) }()
		_, err := io.ReadFull(server, make([]byte, 1000))
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, socketbridge.BridgeStats{Accepted: 1, Active: 1, ToTarget: 1000}, b.Stats())
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
	})
	s := socketbridge.BridgeStats{Accepted: 1, Refused: 2, FailedDials: 3, Active: 4, Broken: 5, ToTarget: 6, ToClient: 7}
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.JSONEq(t, `{"accepted":1,"refused":2,"failed_dials":3,"active":4,"broken":5,"to_target":6,"to_client":7}`, string(text))
	require.Equal(t, "[accepted=1 refused=2 failed_dials=3 active=4 broken=5 to_target=6 to_client=7]", slog.AnyValue(s).Resolve().String())
}
