// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// Where there is no vsock there is an error, not a bridge that nobody reaches.
func TestVsock(t *testing.T) {
	o, err := parse([]string{"-listen", "vsock:6660"}, io.Discard)
	require.NoError(t, err)
	require.ErrorIs(t, serve(t.Context(), o), errors.ErrUnsupported)
}
