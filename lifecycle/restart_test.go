// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/lifecycle"
)

func TestWithoutRestartAnExitIsTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		state lifecycle.State
	}{
		"nil":            {nil, lifecycle.Stopped},
		"error":          {errDisk, lifecycle.Failed},
		"permanent":      {lifecycle.Permanent(errDisk), lifecycle.Failed},
		"cancel unasked": {context.Canceled, lifecycle.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, j *journal) {
				require.NoError(t, s.Start(t.Context(), "a", exits(c.err)))
				pass(24 * time.Hour)
				require.Equal(t, []lifecycle.State{lifecycle.Starting, lifecycle.Ready, c.state}, j.states("a"))
				st := status(t, s, "a")
				require.Equal(t, c.err, st.Err)
				require.Zero(t, st.Restarts)
				require.Equal(t, uint64(1), st.Run)
			})
		})
	}
}

// waits collects how long each Backoff of task "a" lasted.
func waits(j *journal) (all []time.Duration) {
	var since time.Time
	for _, st := range j.of("a") {
		switch st.State {
		case lifecycle.Backoff:
			since = st.Since
		case lifecycle.Starting:
			if !since.IsZero() {
				all = append(all, st.Since.Sub(since))
			}
		}
	}
	return all
}

func TestRestartWaitsGrowBetweenMinAndMax(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		restart lifecycle.Restart
		low, up []time.Duration // bounds of the first waits; the last ones stay
	}{
		"both given": {
			lifecycle.Restart{Min: 100 * ms, Max: time.Second},
			[]time.Duration{100 * ms, 200 * ms, 400 * ms, 500 * ms},
			[]time.Duration{200 * ms, 400 * ms, 800 * ms, time.Second},
		},
		"Max default": {
			lifecycle.Restart{Min: 20 * time.Second},
			[]time.Duration{20 * time.Second, 30 * time.Second},
			[]time.Duration{40 * time.Second, time.Minute},
		},
		"Min default": {
			lifecycle.Restart{Max: 3 * time.Second},
			[]time.Duration{time.Second, 1500 * ms},
			[]time.Duration{2 * time.Second, 3 * time.Second},
		},
		"Min default above Max": {
			lifecycle.Restart{Max: 3 * ms}, []time.Duration{3 * ms}, []time.Duration{3 * ms},
		},
		"Min above Max": {
			lifecycle.Restart{Min: time.Hour, Max: time.Second}, []time.Duration{time.Hour}, []time.Duration{time.Hour},
		},
		"Min above Max default": {
			lifecycle.Restart{Min: time.Hour}, []time.Duration{time.Hour}, []time.Duration{time.Hour},
		},
		"no wait":             {lifecycle.Restart{Min: -1}, []time.Duration{0}, []time.Duration{0}},
		"no wait and no Max":  {lifecycle.Restart{Min: -1, Max: -1}, []time.Duration{0}, []time.Duration{0}},
		"one nanosecond each": {lifecycle.Restart{Min: 1, Max: 1}, []time.Duration{1}, []time.Duration{1}},
		"no Max": {
			lifecycle.Restart{Min: time.Hour, Max: -1},
			[]time.Duration{1 * time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour},
			[]time.Duration{2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour, math.MaxInt64},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, lifecycle.Config{Restart: c.restart}, func(t *testing.T, s *lifecycle.Supervisor, j *journal) {
				const runs = 15
				n := 0
				require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(func(ctx context.Context) error {
					if n++; n == runs {
						return obedient(ctx)
					}
					return []error{errDisk, nil}[n%2] // a nil exit that nobody asked for is restarted too
				})))
				for status(t, s, "a").Run < runs {
					pass(time.Hour)
				}
				synctest.Wait()
				got := waits(j)
				require.Len(t, got, runs-1)
				for i, d := range got {
					at := min(i, len(c.low)-1)
					require.GreaterOrEqual(t, d, c.low[at], "wait %d", i)
					require.LessOrEqual(t, d, c.up[at], "wait %d", i)
				}
				require.Equal(t, runs-1, status(t, s, "a").Restarts)
			})
		})
	}
}

// An endless wait must not overflow into a short or negative one.
func TestRestartWithoutMaxKeepsGrowing(t *testing.T) {
	cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: math.MaxInt64 / 2, Max: -1}}
	bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		require.NoError(t, s.Start(t.Context(), "a", exits(errDisk)))
		pass(24 * 365 * time.Hour)
		require.Equal(t, lifecycle.Backoff, status(t, s, "a").State)
	})
}

func TestRestartWaitsAreSpread(t *testing.T) {
	cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: time.Minute, Max: time.Hour}}
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 20 {
			j := new(journal)
			cfg.OnChange = j.add
			s := lifecycle.New(cfg)
			require.NoError(t, s.Start(t.Context(), "a", exits(errDisk)))
			pass(3 * time.Minute)
			require.NoError(t, s.Close())
			seen[waits(j)[0]] = true
		}
		require.Greater(t, len(seen), 1, "tasks that die together come back together")
	})
}

func TestRestartWaitsBeginAgainAfterALongRun(t *testing.T) {
	for name, c := range map[string]struct {
		last time.Duration
		max  time.Duration // of the wait after it
		min  time.Duration
	}{
		"longer than Max": {time.Minute + 1, 2 * time.Second, time.Second},
		"Max":             {time.Minute, time.Minute, 32 * time.Second / 2},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: time.Second, Max: time.Minute}}
			bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, j *journal) {
				n := 0
				require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(func(context.Context) error {
					if n++; n == 5 {
						<-time.After(c.last)
					}
					return errDisk
				})))
				for len(waits(j)) < 5 {
					pass(time.Second)
				}
				got := waits(j)
				require.GreaterOrEqual(t, got[3], 8*time.Second, "had grown")
				require.GreaterOrEqual(t, got[4], c.min)
				require.LessOrEqual(t, got[4], c.max)
			})
		})
	}
}

// A year of a task that fails at once: the storm is bounded by Max.
func TestRestartStormIsBounded(t *testing.T) {
	cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: time.Second, Max: time.Hour}}
	bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		require.NoError(t, s.Start(t.Context(), "a", exits(errDisk)))
		pass(30 * 24 * time.Hour)
		require.LessOrEqual(t, status(t, s, "a").Run, uint64(30*24*2+13))
		require.GreaterOrEqual(t, status(t, s, "a").Run, uint64(30*24))
	})
}

type foreign struct{ permanent bool }

func (foreign) Error() string     { return "foreign" }
func (f foreign) Permanent() bool { return f.permanent }

func TestPermanentErrorIsNotRestarted(t *testing.T) {
	require.NoError(t, lifecycle.Permanent(nil))
	require.ErrorIs(t, lifecycle.Permanent(errDisk), errDisk)
	require.EqualError(t, lifecycle.Permanent(errDisk), "disk full")

	for name, c := range map[string]struct {
		err   error
		state lifecycle.State
	}{
		"permanent":         {lifecycle.Permanent(errDisk), lifecycle.Failed},
		"wrapped":           {fmt.Errorf("open: %w", lifecycle.Permanent(errDisk)), lifecycle.Failed},
		"joined":            {errors.Join(errDisk, lifecycle.Permanent(errDisk)), lifecycle.Failed},
		"foreign":           {fmt.Errorf("open: %w", foreign{true}), lifecycle.Failed},
		"foreign, not so":   {fmt.Errorf("open: %w", foreign{false}), lifecycle.Backoff},
		"ordinary":          {errDisk, lifecycle.Backoff},
		"nil":               {nil, lifecycle.Backoff},
		"permanent nil":     {lifecycle.Permanent(nil), lifecycle.Backoff},
		"cancelled by self": {context.Canceled, lifecycle.Backoff},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: time.Minute, Max: time.Hour}}
			bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
				require.NoError(t, s.Start(t.Context(), "a", exits(c.err)))
				synctest.Wait()
				st := status(t, s, "a")
				require.Equal(t, c.state, st.State)
				require.Equal(t, c.err, st.Err)
			})
		})
	}
}

func TestStopEndsTheWaitForARestart(t *testing.T) {
	cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: time.Hour, Max: time.Hour}}
	bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, j *journal) {
		began := time.Now()
		require.NoError(t, s.Start(t.Context(), "a", exits(errDisk)))
		synctest.Wait()
		require.NoError(t, s.Stop(t.Context(), "a"))
		synctest.Wait()
		require.Equal(t, began, time.Now(), "no time passed")
		st := status(t, s, "a")
		require.Equal(t, lifecycle.Stopped, st.State)
		require.NoError(t, st.Err)
		pass(24 * time.Hour)
		require.Equal(t, []lifecycle.State{
			lifecycle.Starting, lifecycle.Ready, lifecycle.Backoff, lifecycle.Stopping, lifecycle.Stopped,
		}, j.states("a"))

		// Start does not wait for the restart either, and counts restarts anew.
		require.NoError(t, s.Start(t.Context(), "a", exits(errDisk)))
		pass(90 * time.Minute)
		require.Equal(t, 1, status(t, s, "a").Restarts)
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(obedient)))
		st = status(t, s, "a")
		require.Equal(t, lifecycle.Ready, st.State)
		require.Zero(t, st.Restarts)
		require.Equal(t, uint64(4), st.Run)
		require.NoError(t, st.Err)
	})
}

func TestStopAtTheMomentOfTheRestart(t *testing.T) {
	for range 50 {
		cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: time.Second, Max: time.Second}}
		bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
			require.NoError(t, s.Start(t.Context(), "a", exits(errDisk)))
			<-time.After(time.Second) // the timer of the Supervisor fires now too
			require.NoError(t, s.Stop(t.Context(), "a"))
			require.Equal(t, lifecycle.Stopped, status(t, s, "a").State)
		})
	}
}
