// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

func newTestLab(ctx context.Context, t *testing.T) *lab {
	t.Helper()
	house.NeedRoot(t)
	house.NeedPrograms(t, "ip", "iperf3")
	kernel, err := choose(variants, "kernel")
	require.NoError(t, err)
	l, err := newLab(ctx, t.TempDir(), kernel[0], 1)
	require.NoError(t, err)
	t.Cleanup(l.close)
	return l
}

// requireGone: nothing is left of a lab.
func requireGone(t *testing.T, l *lab) {
	t.Helper()
	for _, path := range []string{"/run/netns/", "/etc/netns/"} {
		require.NoFileExists(t, filepath.Join(path, l.hostNS))
		require.NoDirExists(t, filepath.Join(path, l.hostNS))
	}
}

func TestLabMeasuresAndIsGone(t *testing.T) {
	l := newTestLab(t.Context(), t)
	chosen, err := choose(tests, "up,trip,connect,guests,container")
	require.NoError(t, err)
	r := sidebyside.Result{}
	for _, test := range append(chosen, always) {
		require.NoError(t, test.run(l, r), test.key)
	}
	for _, column := range []string{colUp, colTrip, colTrip99, colConnect} {
		require.Positive(t, r[column], column)
	}
	require.Len(t, r, 4, "a loopback has no host's process, no second guest and no container")
	l.close()
	requireGone(t, l)
}

// Ctrl-C ends the context.
func TestLabIsGoneAfterItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := newTestLab(ctx, t)
	cancel()
	_, err := l.iperf(l.guestNS, iperfPort)
	require.ErrorIs(t, err, context.Canceled)
	l.close()
	requireGone(t, l)
}

// A program that dies ends what waits for it, and the reason is told.
func TestLabSaysWhatDied(t *testing.T) {
	l := newTestLab(t.Context(), t)
	victim, err := l.start([]string{"sh", "-c", "echo my last words; exec sleep 1000"})
	require.NoError(t, err)
	require.NoError(t, await(l.ctx, "its words", func() bool {
		logs, _ := filepath.Glob(l.dir + "/log*")
		for _, name := range logs {
			if text, _ := os.ReadFile(name); string(text) == "my last words\n" {
				return true
			}
		}
		return false
	}))
	victim.signal(syscall.SIGKILL)
	err = await(l.ctx, "the impossible", func() bool { return false })
	require.ErrorContains(t, err, "sh has ended: signal: killed: my last words")
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := programsFor(variants)
	require.ErrorContains(t, err, "make bench-setup, or apt-get install iproute2 iperf3 iptables udhcpc slirp4netns passt")
}
