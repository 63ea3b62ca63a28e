// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/lifecycle"
)

// FAILURES 9: how a task fares, and why, reaches a callback.
func TestReporterSaysHowItFares(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, j *journal) {
		reports := make(chan error)
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.ReporterFunc(func(ctx context.Context, report func(error)) error {
			for {
				select {
				case err := <-reports:
					report(err)
				case <-ctx.Done():
					return nil
				}
			}
		})))
		synctest.Wait()
		require.Equal(t, lifecycle.Starting, status(t, s, "a").State, "no report yet")
		pass(time.Minute)
		lost := errors.New("connection lost")
		for _, err := range []error{nil, nil, lost, errors.New("connection lost"), errDisk, nil} {
			reports <- err
			pass(time.Second)
		}
		type entry struct {
			State lifecycle.State
			Err   error
		}
		var got []entry
		for _, st := range j.of("a") {
			got = append(got, entry{st.State, st.Err})
		}
		require.Equal(t, []entry{
			{lifecycle.Starting, nil}, {lifecycle.Ready, nil},
			{lifecycle.Degraded, lost}, {lifecycle.Degraded, errDisk}, {lifecycle.Ready, nil},
		}, got, "what says nothing new is not told")
		all := j.of("a")
		require.Equal(t, all[2].Since, all[3].Since, "Since is of the state, not of its cause")
		require.Equal(t, time.Minute, all[1].Since.Sub(all[0].Since))
	})
}

func TestLateReportIsIgnored(t *testing.T) {
	cfg := lifecycle.Config{Restart: lifecycle.Restart{Min: time.Minute, Max: time.Hour}}
	bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		var reports []func(error)
		task := lifecycle.ReporterFunc(func(ctx context.Context, report func(error)) error {
			if reports = append(reports, report); len(reports) == 1 {
				return errDisk
			}
			return obedient(ctx)
		})
		late := func() {
			for _, report := range reports {
				report(errors.New("late"))
				report(nil)
			}
		}
		require.NoError(t, s.Start(t.Context(), "a", task))
		synctest.Wait()
		late()
		st := status(t, s, "a")
		require.Equal(t, lifecycle.Backoff, st.State, "the run has ended")

		pass(3 * time.Minute)
		reports[0](nil)
		st = status(t, s, "a")
		require.Equal(t, lifecycle.Starting, st.State, "the report is of an older run")
		require.Equal(t, errDisk, st.Err, "the last cause")
		reports[1](nil)
		require.NoError(t, status(t, s, "a").Err)

		release := make(chan struct{})
		require.NoError(t, s.Start(t.Context(), "b", stubborn(release)))
		require.NoError(t, s.Stop(t.Context(), "a"))
		late()
		require.Equal(t, lifecycle.Stopped, status(t, s, "a").State)
		close(release)
	})
}

func TestReportWhileStoppingIsIgnored(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, j *journal) {
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.ReporterFunc(func(ctx context.Context, report func(error)) error {
			<-ctx.Done()
			report(nil)
			report(ctx.Err())
			return nil
		})))
		require.NoError(t, s.Stop(t.Context(), "a"))
		synctest.Wait()
		require.Equal(t, []lifecycle.State{lifecycle.Starting, lifecycle.Stopping, lifecycle.Stopped}, j.states("a"))
	})
}

func TestNewStartForgetsTheCauseOfTheLast(t *testing.T) {
	bubble(t, lifecycle.Config{}, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		require.NoError(t, s.Start(t.Context(), "a", exits(errDisk)))
		synctest.Wait()
		require.Equal(t, errDisk, status(t, s, "a").Err)
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.ReporterFunc(func(ctx context.Context, _ func(error)) error {
			return obedient(ctx)
		})))
		require.Equal(t, lifecycle.Status{Name: "a", State: lifecycle.Starting, Since: time.Now(), Run: 2}, status(t, s, "a"))
	})
}

func TestReporterFuncRunsWithoutASupervisor(t *testing.T) {
	f := lifecycle.ReporterFunc(func(_ context.Context, report func(error)) error {
		report(nil)
		report(errDisk)
		return errDisk
	})
	require.Equal(t, errDisk, f.Run(t.Context()))
}

// FAILURES 8: a clean stop is nil, and no error is logged.
func TestHowAStoppedRunMayEnd(t *testing.T) {
	for name, c := range map[string]struct{ returned, want error }{
		"nil":              {nil, nil},
		"context":          {fmt.Errorf("serve: %w", context.Canceled), nil},
		"listener closed":  {&net.OpError{Op: "accept", Err: net.ErrClosed}, nil},
		"closed of ours":   {fmt.Errorf("serve: %w", lifecycle.ErrClosed), nil},
		"trouble":          {errDisk, errDisk},
		"permanent":        {lifecycle.Permanent(errDisk), lifecycle.Permanent(errDisk)},
		"deadline of some": {context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			var buf bytes.Buffer
			cfg := lifecycle.Config{
				Logger:  slog.New(slog.NewTextHandler(&buf, nil)),
				Restart: lifecycle.Restart{Min: time.Second},
			}
			bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
				require.NoError(t, s.Start(t.Context(), "a", lifecycle.RunnerFunc(func(ctx context.Context) error {
					<-ctx.Done()
					return c.returned
				})))
				require.NoError(t, s.Stop(t.Context(), "a"), "it has stopped, whatever it says")
				st := status(t, s, "a")
				require.Equal(t, lifecycle.Stopped, st.State)
				require.Equal(t, c.want, st.Err)
				pass(time.Hour)
				require.Equal(t, uint64(1), status(t, s, "a").Run, "what was stopped is not restarted")
			})
			require.Contains(t, buf.String(), "level=INFO msg=\"lifecycle: ready\" task=a run=1\n")
			require.Equal(t, c.want != nil, strings.Contains(buf.String(), "level=WARN"), buf.String())
			require.NotContains(t, buf.String(), "level=ERROR")
		})
	}
}

func TestLoggerHearsFailuresAsWarnings(t *testing.T) {
	var buf bytes.Buffer
	cfg := lifecycle.Config{
		Logger:  slog.New(slog.NewTextHandler(&buf, nil)),
		Restart: lifecycle.Restart{Min: time.Second},
	}
	bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		n := 0
		require.NoError(t, s.Start(t.Context(), "a", lifecycle.ReporterFunc(func(_ context.Context, report func(error)) error {
			if n++; n == 1 {
				report(errors.New("no frames"))
				return errors.New("reset")
			}
			return lifecycle.Permanent(errDisk)
		})))
		pass(time.Minute)
	})
	for _, line := range []string{
		`level=WARN msg="lifecycle: degraded" task=a run=1 err="no frames"`,
		`level=WARN msg="lifecycle: backoff" task=a run=1 err=reset`,
		`level=INFO msg="lifecycle: starting" task=a run=2` + "\n",
		`level=WARN msg="lifecycle: failed" task=a run=2 err="disk full"`,
	} {
		require.Contains(t, buf.String(), line)
	}
	require.Equal(t, 3, strings.Count(buf.String(), "WARN"), buf.String())
}

func TestOnChangeIsOneGoroutineThatNobodyWaitsFor(t *testing.T) {
	release := make(chan struct{})
	var inside, calls atomic.Int32
	order := map[string][]lifecycle.Status{} // without a lock: -race tells if two goroutines call
	cfg := lifecycle.Config{OnChange: func(st lifecycle.Status) {
		if inside.Add(1) != 1 {
			t.Error("two calls at a time")
		}
		<-release
		calls.Add(1)
		order[st.Name] = append(order[st.Name], st)
		inside.Add(-1)
	}}
	bubble(t, cfg, func(t *testing.T, s *lifecycle.Supervisor, _ *journal) {
		for range 10 { // none of these returns if it waits for OnChange
			for _, name := range []string{"a", "b"} {
				require.NoError(t, s.Start(t.Context(), name, lifecycle.RunnerFunc(obedient)))
				_, err := s.Ensure(t.Context(), name, exits(nil))
				require.NoError(t, err)
				require.NoError(t, s.Stop(t.Context(), name))
			}
		}
		err := s.Shutdown(ended())
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "OnChange")
		close(release)
		require.NoError(t, s.Close())
		require.Equal(t, int32(80), calls.Load(), "all was delivered before Close returned")
		for name, all := range order {
			for i, st := range all {
				want := []lifecycle.State{lifecycle.Starting, lifecycle.Ready, lifecycle.Stopping, lifecycle.Stopped}[i%4]
				require.Equal(t, want, st.State, "%s %d", name, i)
				require.Equal(t, uint64(i/4+1), st.Run)
			}
		}
	})
}

func TestOnChangeMayCallStartAndStop(t *testing.T) {
	var s *lifecycle.Supervisor
	synctest.Test(t, func(t *testing.T) {
		s = lifecycle.New(lifecycle.Config{OnChange: func(st lifecycle.Status) {
			if st.Name == "a" && st.State == lifecycle.Failed {
				s.Statuses()
				if err := errors.Join(
					s.Start(t.Context(), "b", lifecycle.RunnerFunc(obedient)),
					s.Stop(t.Context(), "c"),
				); err != nil {
					t.Error(err)
				}
			}
		}})
		require.NoError(t, s.Start(t.Context(), "c", lifecycle.RunnerFunc(obedient)))
		require.NoError(t, s.Start(t.Context(), "a", exits(errDisk)))
		synctest.Wait()
		require.Equal(t, lifecycle.Ready, status(t, s, "b").State)
		require.Equal(t, lifecycle.Stopped, status(t, s, "c").State)
		require.NoError(t, s.Close())
	})
}

func TestStateText(t *testing.T) {
	for state, text := range map[lifecycle.State]string{
		lifecycle.Starting: "starting", lifecycle.Ready: "ready", lifecycle.Degraded: "degraded",
		lifecycle.Backoff: "backoff", lifecycle.Stopping: "stopping", lifecycle.Stopped: "stopped", lifecycle.Failed: "failed",
	} {
		require.Equal(t, text, state.String())
		data, err := json.Marshal(state)
		require.NoError(t, err)
		require.JSONEq(t, `"`+text+`"`, string(data))
		back := lifecycle.State(-1)
		require.NoError(t, json.Unmarshal(data, &back))
		require.Equal(t, state, back)
	}
	require.Equal(t, "State(7)", lifecycle.State(7).String())
	require.Equal(t, "State(-1)", lifecycle.State(-1).String())
	_, err := lifecycle.State(7).MarshalText()
	require.Error(t, err)
	require.ErrorContains(t, new(lifecycle.State).UnmarshalText([]byte("Ready")), `"ready"`)
}

func TestStatusJSON(t *testing.T) {
	st := lifecycle.Status{
		Name: "a", State: lifecycle.Backoff, Err: errDisk, Restarts: 1, Run: 2,
		Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	data, err := json.Marshal(st)
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"a","state":"backoff","err":"disk full","since":"2026-01-02T03:04:05Z","restarts":1,"run":2}`, string(data))
	st.Err = nil
	data, err = json.Marshal(&st)
	require.NoError(t, err)
	require.NotContains(t, string(data), "err")
}
