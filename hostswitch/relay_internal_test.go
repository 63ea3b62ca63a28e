// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A sized connection notes how much it is asked for.
type sized struct {
	net.Conn
	asked []int // by the one that reads
}

func (c *sized) Read(b []byte) (int, error) {
	c.asked = append(c.asked, len(b))
	return c.Conn.Read(b)
}

// What carries much has a large buffer while there are any, else one that is still of
// use; what had little to carry holds little while it waits.
func TestRelayTakesABufferForWhatItCarries(t *testing.T) {
	const big, much = 128 << 10, 400 << 10
	for name, c := range map[string]struct{ there, want int }{"there are large ones": {1, big}, "there are none": {0, slowBuffer}} {
		t.Run(name, func(t *testing.T) {
			s := &Switch{large: newQuota(c.there, c.there), buffers: sync.Pool{New: func() any { b := make([]byte, big); return &b }}}
			near, src := net.Pipe()
			dst, far := net.Pipe()
			from := &sized{Conn: src}
			var all sync.WaitGroup
			all.Go(func() {
				s.relayHalf(account{guest: 1}, dst, from, new(half), new(half))
				_ = dst.Close()
			})
			all.Go(func() { _, _ = io.Copy(io.Discard, far) })
			for _, n := range []int{much, 100, much} {
				_, err := near.Write(make([]byte, n))
				require.NoError(t, err)
			}
			_, err := near.Write([]byte("x")) // it has waited before
			require.NoError(t, err)
			require.NoError(t, near.Close())
			all.Wait()
			changes := slices.Compact(from.asked)
			require.Equal(t, []int{idleBuffer, c.want, idleBuffer, c.want, idleBuffer}, changes)
			require.Zero(t, s.large.len())
		})
	}
}
