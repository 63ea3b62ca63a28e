// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package fair_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/fair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWhoHasMostGivesWay(t *testing.T) {
	var table fair.Table[string, int]
	require.Nil(t, table.Excess())
	require.Nil(t, table.Oldest("modest"))
	modest := table.Add("modest", 1, 1)
	greedy := []*fair.Entry[string, int]{table.Add("greedy", 2, 1), table.Add("greedy", 3, 1)}
	heavy := table.Add("heavy", 4, 3)
	require.Equal(t, 6, table.Weight())

	require.Same(t, heavy, table.Excess(), "by weight, not by number")
	table.Remove(heavy)
	table.Remove(heavy)
	table.Touch(heavy)
	require.Equal(t, 3, table.Weight())
	require.Zero(t, table.WeightOf("heavy"))

	require.Same(t, greedy[0], table.Excess())
	table.Touch(greedy[0])
	require.Same(t, greedy[1], table.Excess(), "not used for longest")
	require.Same(t, greedy[1], table.Oldest("greedy"))
	require.Equal(t, 2, table.WeightOf("greedy"))

	table.Remove(greedy[1])
	table.Remove(greedy[0])
	require.Same(t, modest, table.Excess())
	require.Equal(t, "modest", modest.Owner)
	require.Equal(t, 1, modest.Value)
	table.Remove(modest)
	require.Nil(t, table.Excess())
	require.Zero(t, table.Weight())
}
