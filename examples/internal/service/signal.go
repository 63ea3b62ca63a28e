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
)

// UntilSignal returns a context that ends on SIGTERM or Ctrl-C, for a main function.
// A second one ends the process at once, with exit code 1 and a line that says so.
func UntilSignal() context.Context {
	signals := make(chan os.Signal, 2) // so that none of two is lost, however close they are
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // as long as the process
		<-signals
		cancel()
		<-signals
		_, _ = fmt.Fprintf(os.Stderr, "%s: told to end a second time: connections are cut\n", filepath.Base(os.Args[0]))
		os.Exit(1)
	}()
	return ctx
}
