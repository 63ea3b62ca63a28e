// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/lifecycle"
)

// acceptor is a run that holds a listener and a goroutine.
func acceptor(addr string, ready chan<- net.Addr) lifecycle.ReporterFunc {
	return func(ctx context.Context, report func(error)) error {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		closed := make(chan struct{})
		context.AfterFunc(ctx, func() { defer close(closed); _ = ln.Close() })
		defer func() { <-closed }() // Accept may return before the port is free
		ready <- ln.Addr()
		report(nil)
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			_ = c.Close()
		}
	}
}

func openFiles(t *testing.T) int {
	if runtime.GOOS != "linux" {
		return 1 // the port that can be bound again is the evidence there
	}
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}

// FAILURES 1: 100 restarts leave nothing: the one port binds again each time, no
// file stays open, and goleak looks for goroutines at the end.
func TestManyRestartsLeaveNothing(t *testing.T) {
	ready := make(chan net.Addr, 1)
	s := lifecycle.New(lifecycle.Config{})
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.Start(t.Context(), "switch", acceptor("127.0.0.1:0", ready)))
	addr := (<-ready).String()
	before := openFiles(t)
	require.Positive(t, before)
	for i := range 100 {
		if i%2 == 0 {
			require.NoError(t, s.Stop(t.Context(), "switch"))
		}
		require.NoError(t, s.Start(t.Context(), "switch", acceptor(addr, ready)))
		select {
		case got := <-ready:
			require.Equal(t, addr, got.String())
		case <-time.After(10 * time.Second):
			require.Fail(t, "the port did not bind again", "%v", s.Statuses())
		}
	}
	require.Equal(t, before, openFiles(t))
	require.NoError(t, s.Stop(t.Context(), "switch"))
	st, _ := s.Status("switch")
	require.NoError(t, st.Err, "FAILURES 8: net.ErrClosed of a stopped Accept is no error")
	require.Equal(t, uint64(101), st.Run)
}

// FAILURES 3: a start that fails halfway is ended by the owner of the start: its
// context ends with the run, and the name is free again.
func TestFailedStartIsOwnedToo(t *testing.T) {
	s := lifecycle.New(lifecycle.Config{})
	var half context.Context
	require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(func(ctx context.Context) error {
		half = ctx // what was brought up before the failure hangs on this
		return errDisk
	})))
	require.Eventually(t, func() bool {
		st, _ := s.Status("a")
		return st.State == lifecycle.Failed
	}, 10*time.Second, time.Millisecond)
	<-half.Done()
	started, err := s.Ensure(t.Context(), "a", lifecycle.RunnerFunc(obedient))
	require.NoError(t, err)
	require.True(t, started)
	require.NoError(t, s.Close())
}

// Everything at once on few names: never two runs of one name, nothing left over,
// and no Start gets through after Shutdown.
func TestStress(t *testing.T) {
	const names = 3
	for range 20 {
		var running [names]atomic.Int32
		var closed atomic.Bool
		s := lifecycle.New(lifecycle.Config{
			Restart:  lifecycle.Restart{Min: time.Microsecond, Max: 50 * time.Microsecond},
			OnChange: func(lifecycle.Status) { runtime.Gosched() },
		})
		task := func(n int) lifecycle.Runner {
			return lifecycle.ReporterFunc(func(ctx context.Context, report func(error)) error {
				if running[n].Add(1) != 1 {
					t.Error("two runs of one name")
				}
				defer running[n].Add(-1)
				var late sync.WaitGroup
				defer late.Wait()
				late.Go(func() { report(nil); report(errDisk) })
				if rand.N(3) == 0 {
					return []error{nil, errDisk, lifecycle.Permanent(errDisk)}[rand.N(3)]
				}
				return obedient(ctx)
			})
		}
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for range 50 {
					n := rand.N(names)
					name := fmt.Sprint(n)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.N(200))*time.Microsecond)
					wasClosed := closed.Load()
					var err error
					switch rand.N(4) {
					case 0:
						err = s.Stop(ctx, name)
						wasClosed = false // an error only if nothing was left to stop
					case 1:
						_, err = s.Ensure(ctx, name, task(n))
					default:
						err = s.Start(ctx, name, task(n))
					}
					if wasClosed && err == nil {
						t.Error("started after Shutdown")
					}
					s.Statuses()
					cancel()
				}
			})
		}
		callers.Go(func() {
			runtime.Gosched()
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.N(3000))*time.Microsecond)
			defer cancel()
			<-ctx.Done()
			_ = s.Shutdown(ctx)
			closed.Store(true)
		})
		callers.Wait()
		require.NoError(t, s.Close())
		for n := range running {
			require.Zero(t, running[n].Load())
		}
		for _, st := range s.Statuses() {
			require.Contains(t, []lifecycle.State{lifecycle.Stopped, lifecycle.Failed}, st.State)
		}
	}
}

// Panics are not recovered: the program ends with the stack of the task.
func TestPanicIsNotRecovered(t *testing.T) {
	if os.Getenv("LIFECYCLE_PANIC") != "" {
		s := lifecycle.New(lifecycle.Config{Restart: lifecycle.Restart{Min: -1}})
		_ = s.Start(t.Context(), "a", lifecycle.RunnerFunc(func(context.Context) error { panic("boom") }))
		<-t.Context().Done()
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanicIsNotRecovered$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), "LIFECYCLE_PANIC=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Contains(t, string(out), "panic: boom")
	require.Contains(t, string(out), "TestPanicIsNotRecovered.func")
}
