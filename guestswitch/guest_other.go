// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package guestswitch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

func (g *Guest) run(context.Context, func(error)) error {
	if _, err := g.config(); err != nil {
		return err
	}
	return g.step("create a tap", func() error {
		return permanentError{fmt.Errorf("%w on %s", errors.ErrUnsupported, runtime.GOOS)}
	})
}
