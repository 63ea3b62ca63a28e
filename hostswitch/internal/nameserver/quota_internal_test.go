// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// However many addresses a guest makes up, only those at work are remembered.
func TestQuotasForget(t *testing.T) {
	q, all := newQuotas(1), make(chan struct{}, 2)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

	first, ok := q.acquire(t.Context(), all, addr(0), false)
	require.True(t, ok)
	_, ok = q.acquire(ended, all, addr(0), true)
	require.False(t, ok, "its share is taken")
	second, ok := q.acquire(t.Context(), all, addr(1), true)
	require.True(t, ok)
	for i := range 1000 {
		_, ok = q.acquire(ended, all, addr(2+i), i%2 == 0)
		require.False(t, ok, "all are taken")
		require.Len(t, q.of, 2)
	}
	first()
	second()
	require.Empty(t, q.of)
	require.Empty(t, all)
}
