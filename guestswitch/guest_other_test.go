// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package guestswitch_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/guestswitch"
)

func TestElsewhereRunSaysSo(t *testing.T) {
	g := &guestswitch.Guest{Dial: dialNobody}
	for range 2 {
		err := g.Run(t.Context())
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.NotErrorIs(t, err, errDialled)
	}
}
