// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package lifecycle runs named tasks: it starts, replaces, restarts and stops
// them, says how each fares, and leaves nothing behind.
//
// A task is a [Runner] under a name. [Supervisor.Start] replaces what runs under
// that name, [Supervisor.Ensure] leaves it alone, [Supervisor.Stop] ends it; all
// three may be called again and again, which is what a reconcile loop does.
// [Config].OnChange and [Supervisor.Status] tell what became of a task and why.
//
//	s := lifecycle.New(lifecycle.Config{Restart: lifecycle.Restart{Min: time.Second}})
//	defer s.Close()
//	err := s.Start(ctx, "switch", lifecycle.RunnerFunc(serve))
//
// # Ownership
//
// The Supervisor owns one goroutine for each task that runs or waits to be
// restarted, and one more while there are changes to log or to hand to OnChange.
// [Supervisor.Shutdown] and [Supervisor.Close] end and join them all. A task ends
// with Stop, Shutdown, Close, or by itself, never with the context that Start was
// given.
//
// # Concurrency
//
// All methods may be called concurrently. Calls on one name take effect in the
// order in which they were made; a slow one delays no other name. A task must not
// wait for its own end: inside Run, Stop of the own name does not return before
// its context ends.
//
// # Limits
//
// Panics are not recovered: a panic in a task ends the program, with its stack. A
// name once started is remembered, with its last [Status], as long as the
// Supervisor is.
package lifecycle
