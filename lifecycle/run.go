// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// The methods in this file want s.mu held, but for live, runOnce, deliver and log,
// and those that say that they take it.

// advance puts into effect the calls that are due. It stops at one that needs the
// end of the present run; that end calls advance again.
func (s *Supervisor) advance(t *task) {
	for len(t.calls) > 0 {
		c := t.calls[0]
		switch l := t.life; {
		case l != nil && c.ensure && !l.stopping: // runs already
		case l != nil:
			s.askToStop(t)
			return
		case c.runner != nil:
			s.begin(t, c)
			c.started = true
		}
		t.calls = slices.Delete(t.calls, 0, 1)
		close(c.done)
	}
}

// refuse takes the waiting Starts of a task out of the line.
func (s *Supervisor) refuse(t *task) {
	t.calls = slices.DeleteFunc(t.calls, func(c *call) bool {
		if c.runner == nil {
			return false
		}
		c.err = closedFor(t.status.Name)
		close(c.done)
		return true
	})
}

func (s *Supervisor) askToStop(t *task) {
	if l := t.life; l != nil && !l.stopping {
		l.stopping = true
		s.change(t, Stopping, t.status.Err)
		l.cancel()
	}
}

func (s *Supervisor) begin(t *task, c *call) {
	// The caller's context ends when a reconcile does; the task must not.
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	t.life = &life{runner: c.runner, cancel: cancel}
	s.lives++
	t.status.Restarts = 0
	t.status.Err = nil
	go s.live(ctx, t, t.life, s.nextRun(t))
}

// nextRun turns to the next run of the present life and returns its number.
func (s *Supervisor) nextRun(t *task) uint64 {
	t.status.Run++
	t.life.running = true
	s.change(t, Starting, t.status.Err)
	if _, ok := t.life.runner.(Reporter); !ok {
		s.change(t, Ready, nil)
	}
	return t.status.Run
}

// live is the goroutine of a life: runs, and the waits between them.
func (s *Supervisor) live(ctx context.Context, t *task, l *life, run uint64) {
	defer l.cancel()
	for {
		began := time.Now()
		err := s.runOnce(ctx, t, l, run)
		delay, again := s.exited(t, l, err, time.Since(began))
		if !again {
			return
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		if run, again = s.resume(t, l); !again {
			return
		}
	}
}

// runOnce gives each run a context of its own, so that what a run hung on to it is
// released when the run ends.
func (s *Supervisor) runOnce(ctx context.Context, t *task, l *life, run uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r, ok := l.runner.(Reporter); ok {
		return r.RunReporting(ctx, func(err error) { s.report(t, l, run, err) })
	}
	return l.runner.Run(ctx)
}

// report takes s.mu. A report that comes late, from a run that has ended or was
// told to stop, is dropped.
func (s *Supervisor) report(t *task, l *life, run uint64, err error) {
	state, cause := Ready, ""
	if err != nil {
		state, cause = Degraded, err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.life != l || t.status.Run != run || !l.running || l.stopping {
		return
	}
	if t.status.State != state || l.cause != cause {
		l.cause = cause
		s.change(t, state, err)
	}
}

// exited takes s.mu. It returns the wait before the next run, and whether there is
// to be one.
func (s *Supervisor) exited(t *task, l *life, err error, took time.Duration) (time.Duration, bool) {
	clean, permanent := endedCleanly(err), isPermanent(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.running = false
	switch {
	case l.stopping && clean:
		s.end(t, Stopped, nil)
	case l.stopping: // as asked, but with a cause that somebody should see
		s.end(t, Stopped, err)
	case s.cfg.Restart != Restart{} && !permanent:
		s.change(t, Backoff, err)
		return l.backoff.next(s.cfg.Restart, took), true
	case err != nil:
		s.end(t, Failed, err)
	default:
		s.end(t, Stopped, nil)
	}
	return 0, false
}

// resume takes s.mu. It begins the next run after a wait, unless the task was told
// to stop meanwhile.
func (s *Supervisor) resume(t *task, l *life) (run uint64, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.stopping {
		s.end(t, Stopped, nil)
		return 0, false
	}
	t.status.Restarts++
	return s.nextRun(t), true
}

func (s *Supervisor) end(t *task, state State, err error) {
	t.life = nil
	s.lives--
	s.change(t, state, err)
	s.advance(t)
	s.settle()
}

// settle is called when something may have been the last thing that Shutdown waits
// for. Once it closes idle nothing can change any more, so it does that only once.
func (s *Supervisor) settle() {
	if s.closed && s.lives == 0 && !s.delivering {
		close(s.idle)
	}
}

// change enters a state, and queues that for delivery. Since moves with the state
// only, not with a new cause of the same one.
func (s *Supervisor) change(t *task, state State, err error) {
	if t.status.State != state || t.status.Since.IsZero() {
		t.status.Since = time.Now()
	}
	t.status.State, t.status.Err = state, err
	if s.cfg.OnChange == nil && s.cfg.Logger == nil {
		return
	}
	s.pending = append(s.pending, t.status)
	if !s.delivering {
		s.delivering = true
		go s.deliver()
	}
}

// deliver is the one goroutine that calls Logger and OnChange. It ends when there
// is nothing to deliver, so an idle Supervisor has none.
func (s *Supervisor) deliver() {
	for {
		s.mu.Lock()
		batch := s.pending
		s.pending = nil
		if len(batch) == 0 {
			s.delivering = false
			s.settle()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for _, st := range batch {
			s.log(st)
			if s.cfg.OnChange != nil {
				s.cfg.OnChange(st)
			}
		}
	}
}

func (s *Supervisor) log(st Status) {
	if s.cfg.Logger == nil {
		return
	}
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("task", st.Name), slog.Uint64("run", st.Run)}
	if st.Err != nil && st.State != Starting && st.State != Stopping { // there it is the last cause, logged before
		level = slog.LevelWarn
		attrs = append(attrs, slog.Any("err", st.Err))
	}
	s.cfg.Logger.LogAttrs(context.Background(), level, "lifecycle: "+st.State.String(), attrs...)
}
