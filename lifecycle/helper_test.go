// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ lifecycle.Runner   = lifecycle.RunnerFunc(nil)
	_ lifecycle.Reporter = lifecycle.ReporterFunc(nil)
	_ lifecycle.Runner   = (*lifecycle.Supervisor)(nil)

	errDisk = errors.New("disk full")
)

// obedient is a run that ends when it is told to.
func obedient(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// stubborn is a run that ends when the test lets it.
func stubborn(release <-chan struct{}) lifecycle.RunnerFunc {
	return func(context.Context) error { <-release; return nil }
}

func exits(err error) lifecycle.RunnerFunc {
	return func(context.Context) error { return err }
}

// journal is an OnChange that remembers.
type journal struct {
	mu  sync.Mutex
	all []lifecycle.Status
}

func (j *journal) add(s lifecycle.Status) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all = append(j.all, s)
}

func (j *journal) of(name string) (all []lifecycle.Status) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.all {
		if s.Name == name {
			all = append(all, s)
		}
	}
	return all
}

func (j *journal) states(name string) (all []lifecycle.State) {
	for _, s := range j.of(name) {
		all = append(all, s.State)
	}
	return all
}

// bubble runs f in a synctest bubble with a Supervisor that is closed at the end.
func bubble(t *testing.T, cfg lifecycle.Config, f func(t *testing.T, s *lifecycle.Supervisor, j *journal)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		j := new(journal)
		if cfg.OnChange == nil {
			cfg.OnChange = j.add
		}
		s := lifecycle.New(cfg)
		defer func() { require.NoError(t, s.Close()) }()
		f(t, s, j)
	})
}

func status(t *testing.T, s *lifecycle.Supervisor, name string) lifecycle.Status {
	t.Helper()
	st, ok := s.Status(name)
	require.True(t, ok, "status of %q", name)
	return st
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// pass lets time go by on the clock of a bubble, where none really does, and lets
// everybody else react to it. Tests call it, runs must not.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
