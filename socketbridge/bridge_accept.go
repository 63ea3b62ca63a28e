// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Bounds of the pause after an Accept that failed.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// accept hands connections to serve until ctx ends or ln cannot accept any more,
// and returns why. Each comes with a slot, which serve has released in the end.
func (r *run) accept(ctx context.Context, ln net.Listener, serve func(net.Conn)) error {
	pause := minPause
	for {
		if !r.acquire(ctx) {
			return ctx.Err()
		}
		conn, err := ln.Accept()
		if err == nil {
			pause = minPause
			serve(conn)
			continue
		}
		r.release()
		if ctx.Err() != nil || !passes(err) {
			return err
		}
		r.pausing.warn(r.log, "socketbridge: cannot accept, trying again", "address", ln.Addr(), "error", err, "in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		pause = min(2*pause, maxPause)
	}
}

// acquire waits for a slot. It reports whether there is one before ctx ends.
func (r *run) acquire(ctx context.Context) bool {
	if r.slots == nil {
		return ctx.Err() == nil
	}
	select {
	case r.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *run) release() {
	if r.slots != nil {
		<-r.slots
	}
}

// passes reports whether an error of Accept says something about one peer or about
// this moment, and not about the listener.
func passes(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok && slices.Contains(passing, errno) {
		return true
	}
	temporary, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && temporary.Temporary()
}

// A throttle lets one line in 10 s into a log and counts the others, so that
// whoever connects in a loop does not fill the disk. The zero value is ready.
type throttle struct {
	mu     sync.Mutex
	next   time.Time
	hidden int
	last   func() // says what was hidden
}

func (t *throttle) warn(log *slog.Logger, message string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Before(t.next) {
		t.hidden++
		t.last = func() { log.Warn(message+", not logged", "more", t.hidden) }
		return
	}
	if t.hidden > 0 {
		args = append(args, "more", t.hidden)
	}
	log.Warn(message, args...)
	t.next, t.hidden = now.Add(10*time.Second), 0
}

// flush says how many lines were kept back since the last one.
func (t *throttle) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hidden > 0 {
		t.last()
		t.hidden = 0
	}
}
