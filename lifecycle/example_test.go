// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rancher-sandbox/guestnet/lifecycle"
)

func ExampleSupervisor() {
	s := lifecycle.New(lifecycle.Config{
		OnChange: func(st lifecycle.Status) { fmt.Println(st.Name, st.Run, st.State) },
		Restart:  lifecycle.Restart{Min: time.Millisecond, Max: time.Second},
	})

	failed := false
	second := make(chan struct{})
	serve := func(ctx context.Context) error {
		if !failed {
			failed = true
			return errors.New("port in use")
		}
		close(second)
		<-ctx.Done()
		return nil
	}
	if err := s.Start(context.Background(), "api", lifecycle.RunnerFunc(serve)); err != nil {
		fmt.Println(err)
	}
	<-second
	_ = s.Close() // stops, waits, and has delivered every change when it returns

	// Output:
	// api 1 starting
	// api 1 ready
	// api 1 backoff
	// api 2 starting
	// api 2 ready
	// api 2 stopping
	// api 2 stopped
}

// A reconcile loop calls Ensure and Stop each time with what should be; nothing
// happens to what is as it should be.
func ExampleSupervisor_Ensure() {
	s := lifecycle.New(lifecycle.Config{})
	defer func() { _ = s.Close() }()

	bridge := lifecycle.RunnerFunc(func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
	reconcile := func(ctx context.Context, wanted bool) error {
		if !wanted {
			return s.Stop(ctx, "bridge")
		}
		started, err := s.Ensure(ctx, "bridge", bridge)
		if err != nil {
			return err
		}
		st, _ := s.Status("bridge")
		fmt.Printf("started %t, run %d is %s\n", started, st.Run, st.State)
		return nil
	}
	for _, wanted := range []bool{true, true, false, true} {
		// The context ends with the reconcile, the bridge does not.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := reconcile(ctx, wanted); err != nil {
			fmt.Println(err)
		}
		cancel()
	}

	// Output:
	// started true, run 1 is ready
	// started false, run 1 is ready
	// started true, run 2 is ready
}
