// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !windows && !darwin

package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

func routes() ([]netip.Prefix, error) {
	return nil, fmt.Errorf("%s: %w", runtime.GOOS, errors.ErrUnsupported)
}
