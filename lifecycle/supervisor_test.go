// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/lifecycle"
)

func TestPlainRunnerIsReadyWhenItRuns(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, j *journal) {
		_, ok := s.Status("a")
		require.False(t, ok)
		began := time.Now()
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(obedient)))
		require.Equal(t, lifecycle.Status{Name: "a", State: lifecycle.Ready, Since: began, Run: 1}, status(t, s, "a"))

		pass(time.Hour)
		require.Equal(t, began, status(t, s, "a").Since)
		require.NoError(t, s.Stop(t.Context(), "a"))
		require.Equal(t, lifecycle.Status{Name: "a", State: lifecycle.Stopped, Since: time.Now(), Run: 1}, status(t, s, "a"))
		synctest.Wait()
		require.Equal(t, []lifecycle.State{lifecycle.Starting, lifecycle.Ready, lifecycle.Stopping, lifecycle.Stopped}, j.states("a"))
	})
}

// FAILURES 2: starting twice orphaned the first run. FAILURES 1: whatever started
// is in the hands of one owner.
func TestStartReplacesByStopWaitStart(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		var order []string // each entry is ordered by the Supervisor: -race would tell
		run := func(name string) lifecycle.RunnerFunc {
			return func(ctx context.Context) error {
				order = append(order, name+" begins")
				<-ctx.Done()
				<-time.After(time.Minute)
				order = append(order, name+" ends")
				return nil
			}
		}
		for _, name := range []string{"first", "second", "third"} {
			require.NoError(t, s.Start(t.Context(), "a", run(name)))
			synctest.Wait()
		}
		require.Equal(t, uint64(3), status(t, s, "a").Run)
		require.NoError(t, s.Stop(t.Context(), "a"))
		require.Equal(t, []string{
			"first begins", "first ends", "second begins", "second ends", "third begins", "third ends",
		}, order)
	})
}

func TestTaskOutlivesTheContextOfStart(t *testing.T) {
	type key struct{}
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "lent"), time.Minute)
		defer cancel()
		var got any
		require.NoError(t, s.Start(ctx, "a", lifecycle.RunnerFunc(func(ctx context.Context) error {
			got = ctx.Value(key{})
			_, bounded := ctx.Deadline()
			return errors.Join(obedient(ctx), map[bool]error{true: errors.New("the deadline of Start")}[bounded])
		})))
		pass(time.Hour)
		require.Error(t, ctx.Err())
		require.Equal(t, lifecycle.Ready, status(t, s, "a").State)
		require.NoError(t, s.Stop(t.Context(), "a"))
		require.Equal(t, "lent", got)
	})
}

func TestContextOfStartBoundsTheWaitForTheOldRun(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		release := make(chan struct{})
		never := lifecycle.RunnerFunc(func(context.Context) error { panic("must not start") })
		require.NoError(t, s.Start(t.Context(), "a", stubborn(release)))

		// Ended before there was a wait: the old run is left alone.
		err := s.Start(ended(), "a", never)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, lifecycle.Ready, status(t, s, "a").State)
		started, err := s.Ensure(ended(), "a", never)
		require.NoError(t, err, "nothing to wait for")
		require.False(t, started)
		require.NoError(t, s.Start(ended(), "b", lifecycle.RunnerFunc(obedient)), "nothing to wait for")

		// Ended while waiting: nothing is started, the old run is still being stopped.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = s.Start(ctx, "a", never)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `"a"`)
		require.ErrorContains(t, err, "nothing was started")
		require.Equal(t, lifecycle.Stopping, status(t, s, "a").State)
		_, err = s.Ensure(ended(), "a", never)
		require.ErrorIs(t, err, context.Canceled)

		close(release)
		require.NoError(t, s.Stop(t.Context(), "a"))
		st := status(t, s, "a")
		require.Equal(t, lifecycle.Stopped, st.State)
		require.Equal(t, uint64(1), st.Run)
	})
}

func TestEnsureStartsOnlyIfNoneRunsOrBacksOff(t *testing.T) {
	cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: time.Minute, Max: time.Hour}}
	bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		ensure := func(name string, r lifecycle.Runner) bool {
			started, err := s.Ensure(t.Context(), name, r)
			require.NoError(t, err)
			synctest.Wait()
			return started
		}
		idle := lifecycle.RunnerFunc(obedient)
		require.True(t, ensure("runs", idle))
		require.False(t, ensure("runs", idle))
		require.NoError(t, s.Stop(t.Context(), "runs"))
		require.True(t, ensure("runs", idle), "stopped")

		require.True(t, ensure("backs off", exits(errDisk)))
		require.Equal(t, lifecycle.Backoff, status(t, s, "backs off").State)
		require.False(t, ensure("backs off", idle))

		require.True(t, ensure("fails", exits(lifecycle.Permanent(errDisk))))
		require.Equal(t, lifecycle.Failed, status(t, s, "fails").State)
		require.True(t, ensure("fails", idle))
	})
}

func TestEnsureWaitsForARunThatIsBeingStopped(t *testing.T) {
	for what, stop := range map[string]func(ctx context.Context, s *lifecycle.Supervisor) error{
		"Stop given up":  func(ctx context.Context, s *lifecycle.Supervisor) error { return s.Stop(ctx, "a") },
		"Start given up": func(ctx context.Context, s *lifecycle.Supervisor) error { return s.Start(ctx, "a", exits(nil)) },
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
				release := make(chan struct{})
				require.NoError(t, s.Start(t.Context(), "a", stubborn(release)))
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, stop(ctx, s), context.DeadlineExceeded)
				time.AfterFunc(time.Minute, func() { close(release) })
				started, err := s.Ensure(t.Context(), "a", lifecycle.RunnerFunc(obedient))
				require.NoError(t, err)
				require.True(t, started)
				require.Equal(t, uint64(2), status(t, s, "a").Run)
			})
		})
	}
}

func TestStopOfUnknownOrStoppedNameIsNil(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		require.NoError(t, s.Stop(t.Context(), "nobody"))
		require.NoError(t, s.Stop(ended(), "nobody"))
		require.Empty(t, s.Statuses(), "a Stop leaves no trace of the name")
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(obedient)))
		require.NoError(t, s.Stop(t.Context(), "a"))
		require.NoError(t, s.Stop(t.Context(), "a"))
	})
}

func TestStopThatIsGivenUpStillStops(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		release := make(chan struct{})
		require.NoError(t, s.Start(t.Context(), "slow", stubborn(release)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Stop(ctx, "slow")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `"slow"`)
		require.Equal(t, lifecycle.Stopping, status(t, s, "slow").State)
		for range 1000 {
			require.ErrorIs(t, s.Stop(ended(), "slow"), context.Canceled)
		}
		close(release)
		synctest.Wait()
		require.Equal(t, lifecycle.Stopped, status(t, s, "slow").State)
		require.NoError(t, s.Start(t.Context(), "slow", lifecycle.RunnerFunc(obedient)), "no Stop of before is left over")
		require.Equal(t, lifecycle.Ready, status(t, s, "slow").State)
	})
}

// A Stop given up behind a Start that waits has not lost its effect.
func TestStopThatIsGivenUpInTheLineStopsWhatComesBefore(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		release := make(chan struct{})
		require.NoError(t, s.Start(t.Context(), "a", stubborn(release)))
		started := make(chan error, 1)
		go func() { started <- s.Start(t.Context(), "a", lifecycle.RunnerFunc(obedient)) }()
		synctest.Wait()
		require.Error(t, s.Stop(ended(), "a"))
		close(release)
		require.NoError(t, <-started)
		synctest.Wait()
		st := status(t, s, "a")
		require.Equal(t, lifecycle.Stopped, st.State)
		require.Equal(t, uint64(2), st.Run)
	})
}

func TestCallsOnOneNameAreOrdered(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		release := make(chan struct{})
		require.NoError(t, s.Start(t.Context(), "a", stubborn(release)))
		var mu sync.Mutex
		var runs, returns []int
		var calls sync.WaitGroup
		for i := range 20 {
			calls.Go(func() {
				var err error
				switch i % 4 {
				case 3:
					err = s.Stop(t.Context(), "a")
				default:
					err = s.Start(t.Context(), "a", lifecycle.RunnerFunc(func(ctx context.Context) error {
						mu.Lock()
						runs = append(runs, i)
						mu.Unlock()
						return obedient(ctx)
					}))
				}
				mu.Lock()
				defer mu.Unlock()
				returns = append(returns, i)
				if err != nil {
					t.Error(err)
				}
			})
			synctest.Wait() // the call stands in the line
		}
		close(release)
		calls.Wait()
		synctest.Wait()
		require.Equal(t, []int{0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18}, runs)
		require.Len(t, returns, 20)
		require.Equal(t, lifecycle.Stopped, status(t, s, "a").State, "the last call was a Stop")
	})
}

func TestStartThatIsGivenUpLeavesTheLine(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		release := make(chan struct{})
		require.NoError(t, s.Start(t.Context(), "a", stubborn(release)))
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		go func() { errs <- s.Start(ctx, "a", exits(errDisk)) }()
		synctest.Wait()
		go func() { errs <- s.Start(t.Context(), "a", lifecycle.RunnerFunc(obedient)) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-errs, context.Canceled)
		close(release)
		require.NoError(t, <-errs)
		st := status(t, s, "a")
		require.Equal(t, lifecycle.Ready, st.State)
		require.Equal(t, uint64(2), st.Run)
	})
}

func TestSlowStopOfOneNameDelaysNoOther(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		release := make(chan struct{})
		require.NoError(t, s.Start(t.Context(), "slow", stubborn(release)))
		stopped := make(chan error, 1)
		go func() { stopped <- s.Stop(t.Context(), "slow") }()
		synctest.Wait()
		// None of these would ever return if it waited for slow: the bubble would deadlock.
		require.NoError(t, s.Start(t.Context(), "b", lifecycle.RunnerFunc(obedient)))
		require.NoError(t, s.Start(t.Context(), "b", lifecycle.RunnerFunc(obedient)))
		_, err := s.Ensure(t.Context(), "c", lifecycle.RunnerFunc(obedient))
		require.NoError(t, err)
		require.NoError(t, s.Stop(t.Context(), "b"))
		require.Len(t, s.Statuses(), 3)
		close(release)
		require.NoError(t, <-stopped)
	})
}

func TestStatusesAreSortedByName(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		require.NotNil(t, s.Statuses())
		for _, name := range []string{"m", "z", "a", "B"} {
			require.NoError(t, s.Start(t.Context(), name, lifecycle.RunnerFunc(obedient)))
		}
		var names []string
		for _, st := range s.Statuses() {
			names = append(names, st.Name)
		}
		require.Equal(t, []string{"B", "a", "m", "z"}, names)
	})
}

func TestStartRefusesWhatCannotRun(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		for what, r := range map[string]lifecycle.Runner{
			"nil": nil, "RunnerFunc": lifecycle.RunnerFunc(nil), "ReporterFunc": lifecycle.ReporterFunc(nil),
		} {
			require.ErrorContains(t, s.Start(t.Context(), "a", r), `"a": the Runner is nil`, what)
			_, err := s.Ensure(t.Context(), "a", r)
			require.ErrorContains(t, err, "the Runner is nil", what)
		}
		require.ErrorContains(t, s.Start(t.Context(), "", lifecycle.RunnerFunc(obedient)), "the name is empty")
		require.Empty(t, s.Statuses())
	})
}

func TestShutdownStopsAllAtOnce(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, j *journal) {
		var together sync.WaitGroup // each run ends only when all were told to
		for i := range 10 {
			together.Add(1)
			require.NoError(t, s.Start(t.Context(), fmt.Sprint(i), lifecycle.RunnerFunc(func(ctx context.Context) error {
				<-ctx.Done()
				together.Done()
				together.Wait()
				return nil
			})))
		}
		require.NoError(t, s.Shutdown(t.Context()))
		for i := range 10 {
			require.Equal(t, lifecycle.Stopped, j.states(fmt.Sprint(i))[3], "delivered before Shutdown returned")
		}
	})
}

func TestShutdownNamesWhatHasNotStopped(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		release := make(chan struct{})
		for _, name := range []string{"one", "two"} {
			require.NoError(t, s.Start(t.Context(), name, stubborn(release)))
		}
		require.NoError(t, s.Start(t.Context(), "good", lifecycle.RunnerFunc(obedient)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `"one", "two"`)
		require.NotContains(t, err.Error(), "good")

		closed := make(chan error, 3)
		go func() { closed <- s.Shutdown(t.Context()) }()
		go func() { closed <- s.Close() }()
		go func() { closed <- s.Stop(t.Context(), "one") }()
		synctest.Wait()
		require.Empty(t, closed, "a second one waits too")
		close(release)
		for range cap(closed) {
			require.NoError(t, <-closed)
		}
		require.NoError(t, s.Shutdown(ended()), "all is done")
	})
}

// Conventions: after Close every call returns ErrClosed, and net.ErrClosed.
func TestCallsAfterCloseReturnErrClosed(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(obedient)))
		require.NoError(t, s.Close())
		_, ensured := s.Ensure(t.Context(), "a", exits(nil))
		for what, err := range map[string]error{
			"Start":        s.Start(t.Context(), "a", exits(nil)),
			"Ensure":       ensured,
			"Stop":         s.Stop(t.Context(), "a"),
			"Stop unknown": s.Stop(t.Context(), "b"),
			"Run":          s.Run(t.Context()),
		} {
			require.ErrorIs(t, err, lifecycle.ErrClosed, what)
			require.ErrorIs(t, err, net.ErrClosed, what)
		}
		require.NoError(t, s.Close(), "idempotent")
		require.Equal(t, lifecycle.Stopped, status(t, s, "a").State)
	})
}

func TestShutdownRefusesStartsThatWait(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		release := make(chan struct{})
		require.NoError(t, s.Start(t.Context(), "a", stubborn(release)))
		waiting := make(chan error, 2)
		go func() { waiting <- s.Start(t.Context(), "a", exits(errDisk)) }()
		synctest.Wait()
		go func() { _, err := s.Ensure(t.Context(), "a", exits(errDisk)); waiting <- err }()
		synctest.Wait()
		require.Error(t, s.Shutdown(ended()))
		for range cap(waiting) { // at once, while the old run still stops
			require.ErrorIs(t, <-waiting, lifecycle.ErrClosed)
		}
		close(release)
		require.NoError(t, s.Close())
		require.Equal(t, uint64(1), status(t, s, "a").Run)
	})
}

func TestRunWaitsForItsContextThenCloses(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- s.Run(ctx) }()
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(obedient)))
		synctest.Wait()
		require.Empty(t, ran)
		cancel()
		require.NoError(t, <-ran)
		require.Equal(t, lifecycle.Stopped, status(t, s, "a").State)
		require.ErrorIs(t, s.Start(t.Context(), "a", exits(nil)), lifecycle.ErrClosed)
	})
}
