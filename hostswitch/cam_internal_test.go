// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// An address that was not heard of for five minutes is anybody's. (From inside: the
// Switch goes by the clock of the machine.)
func TestMACOfAnotherNameWhenItIsOld(t *testing.T) {
	a, other := &port{id: 1, guest: "a"}, &port{id: 2, guest: "other"}
	mac, now := packet.MAC{2, 1}, time.Unix(1e9, 0)
	c := newCAM()
	require.True(t, c.learn(mac, a, now))
	require.False(t, c.learn(mac, other, now.Add(macAge-1)))
	require.True(t, c.learn(mac, a, now.Add(macAge-1)), "heard of again")
	require.False(t, c.learn(mac, other, now.Add(2*macAge-2)))
	require.Same(t, a, c.lookup(mac))
	require.True(t, c.learn(mac, other, now.Add(2*macAge-1)))
	require.Same(t, other, c.lookup(mac))
	require.False(t, c.learn(mac, a, now.Add(2*macAge)), "which works both ways")
}
