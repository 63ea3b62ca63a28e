// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
)

// Config configures a Supervisor. It is read by New; the zero value is useful.
type Config struct {
	// Logger is told of every change: what goes wrong at Warn, the rest at Info.
	// nil: silent.
	Logger *slog.Logger

	// OnChange is told of every state change, and of a new cause in Degraded: in
	// order for each name, one call at a time. Start and Stop never wait for it;
	// changes queue up while it runs. It may call any method but Shutdown, Close
	// and Run, which wait until everything was delivered and so would wait for
	// themselves.
	OnChange func(Status)

	// Restart says whether tasks that end by themselves are run again. The zero
	// value: never.
	Restart Restart
}

// A Supervisor runs named tasks. Make it with New, and Close it.
type Supervisor struct {
	cfg  Config
	idle chan struct{} // closed when closed, and nothing runs or is to be delivered

	mu         sync.Mutex // guards what follows and all tasks; never held while foreign code runs
	closed     bool
	tasks      map[string]*task
	lives      int
	pending    []Status
	delivering bool
}

// A task is all that is known under one name.
type task struct {
	status Status
	life   *life   // nil: nothing runs or backs off
	calls  []*call // not yet in effect, oldest first; while there are any, life is being stopped
}

// A life is a task from the Start to its end: its runs, and the waits between.
type life struct {
	runner   Runner
	cancel   context.CancelFunc
	running  bool // false in Backoff
	stopping bool
	cause    string // text of what it reported last
	backoff  backoff
}

// A call is a Start, Ensure or Stop that is waiting its turn.
type call struct {
	ctx     context.Context
	runner  Runner // nil: Stop
	ensure  bool
	done    chan struct{}
	started bool
	err     error
}

// New returns a Supervisor without tasks. Restart bounds that contradict each
// other are mended as their comments say.
func New(cfg Config) *Supervisor {
	cfg.Restart = cfg.Restart.withDefaults()
	return &Supervisor{cfg: cfg, idle: make(chan struct{}), tasks: make(map[string]*task)}
}

// Start runs r under name. What runs under that name already is told to stop, and
// r is started when it has ended; what waits to be restarted is dropped.
//
// Start does not wait for r to become Ready: a run that fails at once shows in
// OnChange and Status, and is restarted as configured. The run gets the values of
// ctx but outlives it. ctx bounds only the wait for the run being replaced, and for
// earlier calls on the same name: if it ends meanwhile Start returns an error that
// Is its error, and r is not started; the old run, once told to stop, is still
// being stopped. If it has ended before there was a wait, the old run goes on.
//
// Start returns an error for an empty name and a nil r, and [ErrClosed] if Shutdown
// or Close was called, also while it was waiting.
func (s *Supervisor) Start(ctx context.Context, name string, r Runner) error {
	_, err := s.start(ctx, name, &call{ctx: ctx, runner: r})
	return err
}

// Ensure starts r unless something runs or backs off under name, and reports
// whether it did. A run that is being stopped does not count: Ensure waits for its
// end. Bounds and errors are those of Start.
func (s *Supervisor) Ensure(ctx context.Context, name string, r Runner) (bool, error) {
	return s.start(ctx, name, &call{ctx: ctx, runner: r, ensure: true})
}

func (s *Supervisor) start(ctx context.Context, name string, c *call) (bool, error) {
	if name == "" {
		return false, errors.New("lifecycle: start: the name is empty; give each task a name of its own")
	}
	if isNil(c.runner) {
		return false, fmt.Errorf("lifecycle: start %q: the Runner is nil; pass one, or call Stop", name)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false, closedFor(name)
	}
	t := s.tasks[name]
	if t == nil {
		t = &task{status: Status{Name: name}}
		s.tasks[name] = t
	}
	if t.life != nil && !c.ensure { // no wait can begin, so leave alone what runs
		if err := ctx.Err(); err != nil {
			s.mu.Unlock()
			return false, fmt.Errorf("lifecycle: start %q: %w: nothing was stopped or started", name, err)
		}
	}
	c.done = make(chan struct{})
	t.calls = append(t.calls, c)
	s.advance(t)
	s.mu.Unlock()

	select {
	case <-c.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(t.calls, c); i >= 0 {
		t.calls = slices.Delete(t.calls, i, i+1)
		return false, fmt.Errorf("lifecycle: start %q: %w: the run being replaced has not ended, nothing was started", name, ctx.Err())
	}
	return c.started, c.err
}

// Stop ends what runs under name, or waits to be restarted, and returns when it has
// ended: nil, whatever the run returned (Status tells). An unknown name, and one
// under which nothing runs, is nil too, or [ErrClosed] after Close.
//
// If ctx ends first Stop returns an error that names the task and Is the error of
// ctx; the run is still being stopped, and another Stop waits for it again.
func (s *Supervisor) Stop(ctx context.Context, name string) error {
	s.mu.Lock()
	t := s.tasks[name]
	if t == nil || t.life == nil {
		defer s.mu.Unlock()
		if s.closed {
			return closedFor(name)
		}
		return nil
	}
	// A Stop that was given up stays in the line. The next one joins it: however
	// often a stuck task is stopped, the line does not grow.
	c := &call{done: make(chan struct{})}
	if n := len(t.calls); n > 0 && t.calls[n-1].runner == nil {
		c = t.calls[n-1]
	} else {
		t.calls = append(t.calls, c)
	}
	s.advance(t)
	s.mu.Unlock()

	if err := wait(ctx, c.done); err != nil {
		return fmt.Errorf("lifecycle: stop %q: %w: the run has not ended, it is still being stopped", name, err)
	}
	return nil
}

// Status returns the status of the task, and whether there ever was one of that
// name.
func (s *Supervisor) Status(name string) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[name]; t != nil {
		return t.status, true
	}
	return Status{}, false
}

// Statuses returns the status of all tasks, sorted by name.
func (s *Supervisor) Statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.tasks))
	for _, t := range s.tasks {
		all = append(all, t.status)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Shutdown tells all tasks to stop, at once, and returns nil when they have ended
// and every change was logged and delivered to OnChange. From the call on, Start
// and Ensure return [ErrClosed], those that were waiting too.
//
// If ctx ends first Shutdown returns an error that names every task that has not
// ended and Is the error of ctx; these are still being stopped, and another
// Shutdown or Close waits for them again.
func (s *Supervisor) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		for _, t := range s.tasks {
			s.refuse(t)
			s.askToStop(t)
		}
		s.settle()
	}
	s.mu.Unlock()

	err := wait(ctx, s.idle)
	if err == nil {
		return nil
	}
	var names []string
	for _, st := range s.Statuses() {
		if st.State == Stopping {
			names = append(names, fmt.Sprintf("%q", st.Name))
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("lifecycle: shutdown: %w: all tasks have ended, OnChange or Logger has not returned", err)
	}
	return fmt.Errorf("lifecycle: shutdown: %w: still being stopped: %s", err, strings.Join(names, ", "))
}

// Close is Shutdown without a bound; it returns nil. It may be called again, and
// then waits as well.
func (s *Supervisor) Close() error { return s.Shutdown(context.Background()) }

// Run waits for ctx to end, then for Close, and returns nil: so a Supervisor is
// itself a [Runner], and fits a manager that runs such. After Close it returns
// [ErrClosed] at once.
func (s *Supervisor) Run(ctx context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	<-ctx.Done()
	return s.Close()
}

// wait returns nil if done is closed, even if ctx has ended as well.
func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-done:
		return nil
	default:
		return ctx.Err()
	}
}

func closedFor(name string) error { return fmt.Errorf("%w: task %q", ErrClosed, name) }

func isNil(r Runner) bool {
	switch f := r.(type) {
	case nil:
		return true
	case RunnerFunc:
		return f == nil
	case ReporterFunc:
		return f == nil
	}
	return false
}

// endedCleanly tells whether this is how a run ends that was told to stop: its
// context was cancelled and its sockets were closed (FAILURES 8).
func endedCleanly(err error) bool {
	return err == nil || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed)
}
