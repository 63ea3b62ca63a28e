// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"
)

// accept hands connections to serve until ctx ends or ln cannot accept any more,
// and returns why. An error that passes, such as having no descriptor left, is
// waited out.
func accept(ctx context.Context, ln net.Listener, log *slog.Logger, serve func(net.Conn)) error {
	var pause time.Duration
	for {
		conn, err := ln.Accept()
		if err == nil {
			pause = 0
			serve(conn)
			continue
		}
		var passing interface{ Temporary() bool }
		if !errors.As(err, &passing) || !passing.Temporary() {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		log.Warn("discovery: cannot accept, trying again", "error", err, "in", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// A throttle lets one line in 10 s into a log and counts the others, so that
// whoever connects in a loop does not fill the disk. The zero value is ready; it
// is for one goroutine.
type throttle struct {
	next   time.Time
	hidden int
}

func (t *throttle) log(log *slog.Logger, message string, args ...any) {
	now := time.Now()
	if now.Before(t.next) {
		t.hidden++
		return
	}
	log.Warn(message, append(args, "more", t.hidden)...)
	t.next, t.hidden = now.Add(10*time.Second), 0
}
