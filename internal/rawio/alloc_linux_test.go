// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package rawio_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The race detector allocates on its own account.
func TestACallAllocatesNothing(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		buf, many := make([]byte, 4096), [][]byte{make([]byte, 1000), nil, make([]byte, 500)}
		var err error
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			if _, e := w.wr.WriteBuffers(many); e != nil {
				err = e
			}
			if _, e := w.wr.Write(buf[:100]); e != nil {
				err = e
			}
			for left := 1600; left > 0 && err == nil; { // waits, now and then
				n, e := r.rd.Read(buf)
				left, err = left-n, e
			}
		}))
		require.NoError(t, err)
	})
}
