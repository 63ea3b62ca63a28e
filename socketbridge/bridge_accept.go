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

// maxWaiting bounds the connections that are accepted although there is no slot: to ask
// the filter who they are, and to wait.
const maxWaiting = 16

// accept hands connections to serve until ctx ends or ln cannot accept any more,
// and returns why. Each comes with an entry, which serve has released in the end.
func (r *run) accept(ctx context.Context, ln net.Listener, serve func(net.Conn)) error {
	pause := minPause
	for {
		if err := acquire(ctx, r.entries); err != nil {
			return err
		}
		conn, err := ln.Accept()
		if err == nil {
			pause = minPause
			serve(conn)
			continue
		}
		release(r.entries)
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

// acquire waits for a place, or for ctx to end. Where there is no bound there is one.
func acquire(ctx context.Context, places chan struct{}) error {
	if ctx.Err() != nil || places == nil {
		return ctx.Err()
	}
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func release(places chan struct{}) {
	if places != nil {
		<-places
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
