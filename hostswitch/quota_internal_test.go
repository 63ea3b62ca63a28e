// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// One guest does not use up what is there for all, whether it says who it is, or goes
// through forwards to itself.
func TestQuotaLeavesSomethingForOthers(t *testing.T) {
	const limit, each = 64, 16
	greedy, modest := account{guest: 1}, account{guest: 2}
	for name, c := range map[string]struct {
		takes []account // at once, as often as that goes
		want  int
	}{
		"a guest":                       {[]account{greedy}, each},
		"guests that are not known":     {[]account{{}}, each / 8},
		"forwards":                      {[]account{forwarded}, 2 * each},
		"a guest, of its own and known": {[]account{greedy, {}}, each / 8},
		"a guest through its forwards":  {[]account{greedy, forwarded}, each},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQuota(limit, each)
			var taken []account
			times := 0
		all:
			for ; ; times++ {
				for _, of := range c.takes {
					if !q.take(of) {
						break all
					}
					taken = append(taken, of)
				}
			}
			require.Equal(t, c.want, times)
			require.True(t, q.take(modest))
			if times < 2*each {
				require.True(t, q.take(forwarded), "a client of another guest's")
				q.give(forwarded)
			}
			q.give(modest)
			for _, of := range taken {
				q.give(of)
			}
			require.Zero(t, q.len())
			require.Empty(t, q.by)
		})
	}
	q := newQuota(limit, each)
	for i := range limit {
		require.True(t, q.take(account{to: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}))
	}
	require.False(t, q.take(modest), "none is left")
}
