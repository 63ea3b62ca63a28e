// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"os"
	"testing"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/stretchr/testify/require"
)

// A recorder is a test that notes how it was ended, and goes on.
type recorder struct {
	testing.TB
	skipped, failed []any
}

func (*recorder) Helper()          {}
func (r *recorder) Skip(m ...any)  { r.skipped = append(r.skipped, m...) }
func (r *recorder) Fatal(m ...any) { r.failed = append(r.failed, m...) }

func TestMissingProgram(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		ci, program     string
		skipped, failed int
	}{
		"there":            {"", self, 0, 0},
		"there in CI":      {"true", self, 0, 0},
		"not there":        {"", "no-such-program", 1, 0},
		"not there, in CI": {"true", "no-such-program", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CI", tc.ci)
			r := &recorder{}
			house.NeedPrograms(r, tc.program)
			require.Len(t, r.skipped, tc.skipped)
			require.Len(t, r.failed, tc.failed)
			for _, message := range append(r.skipped, r.failed...) {
				require.Contains(t, message, "make setup", "the remedy")
			}
		})
	}
}

// TestWineLacks: nowhere else is a test left out.
func TestWineLacks(t *testing.T) {
	r := &recorder{}
	house.WineLacks(r, "a purpose")
	require.Equal(t, house.OnWine(), len(r.skipped) > 0)
	require.Empty(t, r.failed)
}
