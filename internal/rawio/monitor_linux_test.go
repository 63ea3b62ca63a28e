// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package rawio_test

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

// Who always has something to read or room to write leaves the processor to others, as
// after any system call. The scheduler's monitor sees to that, which sleeps when there was
// nothing to do for a while and has to be told that there is.
func TestWhoNeverWaitsLeavesRoomForOthers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, c := range map[string]struct {
		file string
		open func(f *os.File) func([]byte) (int, error)
	}{
		"Read":  {"/dev/zero", func(f *os.File) func([]byte) (int, error) { return rawio.NewReader(f).Read }},
		"Write": {"/dev/null", func(f *os.File) func([]byte) (int, error) { return rawio.NewWriter(f).Write }},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.OpenFile(c.file, os.O_RDWR|unix.O_NONBLOCK, 0)
			require.NoError(t, err)
			defer func() { _ = f.Close() }()
			busy := c.open(f)
			begin, beginW := pipe(t)
			other, otherW := pipe(t)
			var turn atomic.Bool // of the other
			done := during(func() (int64, error) {
				_, err := io.ReadFull(other, make([]byte, 2))
				turn.Store(true)
				return 0, err
			})
			// Another process: a timer or an os.File of this one's would wake the monitor.
			cmd := exec.CommandContext(t.Context(), "sh", "-c", "sleep 0.3; echo >&3; sleep 0.1; printf xx >&4")
			cmd.ExtraFiles = []*os.File{beginW, otherW}
			require.NoError(t, cmd.Start())
			_, err = rawio.NewReader(begin).Read(make([]byte, 1)) // and neither does this
			require.NoError(t, err)
			b := make([]byte, 16<<10)
			for begun := time.Now(); !turn.Load() && time.Since(begun) < patience/2; {
				_, err := busy(b)
				require.NoError(t, err)
			}
			require.True(t, turn.Load(), "nobody else had a turn")
			require.Equal(t, result{}, await(t, done, "the other"))
			require.NoError(t, cmd.Wait())
		})
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}
