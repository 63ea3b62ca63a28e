// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkTCP(b *testing.B) {
	for _, mtu := range []int{1500, 16000, 65520} {
		for name, up := range map[string]bool{"up": true, "down": false} {
			b.Run(fmt.Sprintf("%d/%s", mtu, name), func(b *testing.B) {
				from, to := newPair(b, mtu).connect(b)
				if !up {
					from, to = to, from
				}
				done := during(func() { _, _ = io.Copy(io.Discard, to) })
				buf := make([]byte, 64<<10)
				b.SetBytes(int64(len(buf)))
				b.ReportAllocs()
				for b.Loop() {
					_, err := from.Write(buf)
					require.NoError(b, err)
				}
				require.NoError(b, from.CloseWrite())
				await(b, done, "the reader")
			})
		}
	}
}
