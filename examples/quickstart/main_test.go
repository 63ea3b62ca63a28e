// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/house"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestArguments(t *testing.T) {
	for arg, code := range map[string]int{"-h": 0, "--help": 0, "-v": 2, "more": 2} {
		var stderr bytes.Buffer
		require.Equal(t, code, command([]string{arg}, &stderr), arg)
		require.Contains(t, stderr.String(), "usage: quickstart\nShows a whole virtual network")
	}
}

func TestEveryStepSucceeds(t *testing.T) {
	if _, err := net.DefaultResolver.LookupHost(t.Context(), "localhost."); err != nil {
		house.WineLacks(t, "the lookup of a name that ends in a dot")
	}
	require.NoError(t, run(t.Context()))
}
