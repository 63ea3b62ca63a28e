// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// UntilSignal returns a context that ends on SIGTERM or Ctrl-C, for a main function.
// A second one ends the process at once, with exit code 1.
func UntilSignal() context.Context {
	signals := make(chan os.Signal, 2) // so that none of two is lost, however close they are
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // as long as the process
		<-signals
		cancel()
		<-signals
		os.Exit(1)
	}()
	return ctx
}
