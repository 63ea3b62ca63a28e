// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package servicetest is what the tests of the programs of examples/ share: folders for
// their sockets, wrong command lines, and a service manager.
package servicetest

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Dir returns a folder for sockets, for which those of TempDir have too long a path.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // its path is short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// A Mistake is a wrong command line.
type Mistake = struct {
	Args []string
	Says string // in the one line that is printed
}

// Mistakes checks what a program makes of wrong command lines.
func Mistakes(t *testing.T, program string, run func(context.Context, []string, io.Writer) int, mistakes map[string]Mistake) {
	for name, m := range mistakes {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), m.Args, &stderr))
			require.Regexp(t, "^"+program+": .+\n$", stderr.String())
			require.Contains(t, stderr.String(), m.Says)
		})
	}
}

// Help checks that -help lists all flags of a program.
func Help(t *testing.T, run func(context.Context, []string, io.Writer) int, flags ...string) {
	var stderr bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-help"}, &stderr))
	for _, flag := range flags {
		require.Contains(t, stderr.String(), "\n  "+flag)
	}
}

// Manager is a service manager, in a [Dir], of the programs that the test starts: told
// waits for the next that one of them tells it.
func Manager(t testing.TB, dir string) (told func() string) {
	t.Helper()
	socket := filepath.Join(dir, "notify")
	manager, err := new(net.ListenConfig).ListenPacket(t.Context(), "unixgram", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = manager.Close() })
	require.NoError(t, manager.SetDeadline(time.Now().Add(time.Minute)))
	t.Setenv("NOTIFY_SOCKET", socket)
	return func() string {
		t.Helper()
		buf := make([]byte, 4096)
		n, _, err := manager.ReadFrom(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
}
