// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/house/process"
)

// asParent tells the test that it is the process to be killed.
const asParent = "GUESTNET_PARENT"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell starts a script and waits until it says that it is ready.
func shell(t *testing.T, script string) *process.Process {
	t.Helper()
	p := process.Start(t, process.Command(t, "sh", "-c", script))
	p.WaitLog("ready")
	return p
}

// pid returns the last line that a process has printed, after it has begun.
func pid(t *testing.T, p *process.Process) (n int) {
	t.Helper()
	lines := strings.Fields(p.Log.String())
	_, err := fmt.Sscan(lines[len(lines)-1], &n)
	require.NoError(t, err, "%s", &p.Log)
	return n
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		// An orphan that nobody has waited for yet is a zombie.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, process.Patience, process.Tick)
}

func TestStop(t *testing.T) {
	p := shell(t, "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done")
	require.Equal(t, "runs", p.State())
	require.False(t, p.EndsWithin(0))
	require.GreaterOrEqual(t, p.Descriptors(), 3)
	p.Stop()
	require.True(t, p.Ended())
	require.Contains(t, p.Log.String(), "bye")

	p = shell(t, "echo ready >&2; exit 3")
	var exit *exec.ExitError
	require.ErrorAs(t, p.Wait(), &exit)
	require.Equal(t, 3, exit.ExitCode())
	require.Equal(t, "has ended: exit status 3", p.State())
}

// The end of a test comes to the last process first, even if it is stopped, and to
// what a process has left behind.
func TestEnd(t *testing.T) {
	var first, last *process.Process
	var left int
	t.Run("lab", func(t *testing.T) {
		first = shell(t, "trap 'exit 0' TERM; sleep 1000 & echo ready $!; wait")
		left = pid(t, first)
		t.Cleanup(func() {
			require.True(t, last.Ended())
			require.False(t, first.Ended())
			require.NoError(t, syscall.Kill(left, 0), "it was not there")
		})
		last = shell(t, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done")
		last.Signal(syscall.SIGSTOP)
	})
	require.NoError(t, first.Wait())
	require.NoError(t, last.Wait())
	requireGone(t, left)
}

// The end of a thread that is not busy, whichever that is, takes no process with it.
func TestThreads(t *testing.T) {
	p := shell(t, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done")
	const threads = 100
	var all, ended sync.WaitGroup
	all.Add(threads)
	for range threads {
		ended.Go(func() {
			runtime.LockOSThread() // for good
			all.Done()
			all.Wait()
		})
	}
	ended.Wait()
	p.Stop()
}

// A test that is killed leaves nothing.
func TestKilled(t *testing.T) {
	if os.Getenv(asParent) != "" {
		p := shell(t, "echo ready $$; exec sleep 1000")
		fmt.Fprintln(os.Stderr, "child", pid(t, p))
		_ = p.Wait()
		return
	}
	cmd := process.Command(t, os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(cmd.Env, asParent+"=1")
	parent := process.Start(t, cmd)
	parent.WaitLog("\n") // all of the line
	child := pid(t, parent)
	require.NoError(t, syscall.Kill(child, 0), "it was not there")
	parent.Signal(syscall.SIGKILL)
	require.Error(t, parent.Wait())
	requireGone(t, child)
}
