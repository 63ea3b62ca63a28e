// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"net"
)

// A Runner is something that runs until its context ends.
//
// Run blocks, owns every goroutine that it starts, and returns nil when ctx ended
// it. An error that Is [context.Canceled] or [net.ErrClosed] counts as nil, too, once
// the task was told to stop. Run may be called again after it has returned, if the
// Supervisor restarts. A Runner that is no [Reporter] counts as Ready as soon as it
// runs.
type Runner interface {
	Run(ctx context.Context) error
}

// RunnerFunc is a function as a [Runner].
type RunnerFunc func(ctx context.Context) error

// Run calls f.
func (f RunnerFunc) Run(ctx context.Context) error { return f(ctx) }

// A Reporter is a [Runner] that also says how it fares. A Supervisor calls
// RunReporting in place of Run.
//
// RunReporting is Run with a way to tell: report(nil) means Ready, report(err)
// means Degraded with that cause. report returns at once and may be called from
// any goroutine, also after the run has ended or was told to stop, when it does
// nothing.
type Reporter interface {
	Runner
	RunReporting(ctx context.Context, report func(error)) error
}

// ReporterFunc is a function as a [Reporter].
type ReporterFunc func(ctx context.Context, report func(error)) error

// Run calls f with a report that does nothing.
func (f ReporterFunc) Run(ctx context.Context) error { return f(ctx, func(error) {}) }

// RunReporting calls f.
func (f ReporterFunc) RunReporting(ctx context.Context, report func(error)) error {
	return f(ctx, report)
}

// Permanent wraps err so that a task that returns it is not restarted. The text is
// that of err, and errors.Is and errors.As see through it. Permanent(nil) is nil.
//
// Any error with a method Permanent() bool that returns true has the same effect,
// so that a package need not import this one to say so.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }
func (permanentError) Permanent() bool { return true }

func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// ErrClosed is what calls return once Shutdown or Close was called. It Is also
// net.ErrClosed.
var ErrClosed error = closedError{}

type closedError struct{}

func (closedError) Error() string { return "lifecycle: supervisor closed" }
func (closedError) Unwrap() error { return net.ErrClosed }
