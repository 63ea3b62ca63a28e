// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// UntilSignal returns a context that ends on SIGTERM or Ctrl-C, for a main function.
// A second one ends the process at once, with exit code 1 and a line that says so.
func UntilSignal() context.Context {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // as long as the process
		twice(signals, cancel)
		_, _ = fmt.Fprintf(os.Stderr, "%s: told to end a second time: connections are cut\n", filepath.Base(os.Args[0]))
		os.Exit(1)
	}()
	return ctx
}

// twice waits for two signals, and calls first after the first. What comes with that is
// no second one: timeout(1) sends it to a process, and then to the group it is in.
func twice(signals <-chan os.Signal, first func()) {
	<-signals
	first()
	<-time.After(20 * time.Millisecond)
	select {
	case <-signals:
	default:
	}
	<-signals
}
