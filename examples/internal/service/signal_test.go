// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Who ends the program with timeout(1) has it end well.
func TestSignalThatComesWithTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		second := make(chan struct{})
		go func() {
			defer close(second)
			twice(signals, cancel)
		}()
		signals <- syscall.SIGTERM
		<-ctx.Done()
		signals <- syscall.SIGTERM
		<-time.After(time.Hour)
		select {
		case <-second:
			require.Fail(t, "it is taken for a second one")
		default:
		}
		signals <- os.Interrupt
		<-second
	})
}
