// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	// Patience only keeps a test that hangs from hanging for ever.
	Patience = 2 * time.Minute
	// Tick is between two looks at what a test waits for.
	Tick = 20 * time.Millisecond
)

// A Process runs for as long as its test, or until it ends.
type Process struct {
	Cmd  *exec.Cmd
	Log  Output // both of its outputs
	t    testing.TB
	done chan struct{}
	err  error // once done is closed
}

// Command returns the command of a program whose end is not that of the test's
// context, which comes before any Cleanup and for all at once.
func Command(t testing.TB, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), args[0], args[1:]...)
	cmd.Env = append(cmd.Environ(), "GORACE=atexit_sleep_ms=0") // a second by default
	return cmd
}

// Start starts a [Command], whose outputs and process group are not set.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, Cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.Log, &p.Log
	cmd.WaitDelay = Patience
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() {
		defer close(p.done)
		// The signal is for the end of the thread that is the parent: no other
		// goroutine may have it, and take it along.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = p.wait()
		}
	}()
	require.NoError(t, <-started)
	t.Cleanup(p.cleanup)
	return p
}

// wait kills what the process leaves behind, which would keep the outputs open,
// before it is waited for: until then its group is its own.
func (p *Process) wait() error {
	pid := p.Cmd.Process.Pid
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	return p.Cmd.Wait()
}

func (p *Process) cleanup() {
	if !p.Ended() {
		p.Signal(syscall.SIGCONT)
		p.Signal(syscall.SIGTERM)
		if !p.EndsWithin(Patience) {
			p.t.Errorf("%s does not end on SIGTERM", p.Cmd)
			p.Signal(syscall.SIGQUIT) // a Go program says what its goroutines do
			p.EndsWithin(time.Second)
			p.Signal(syscall.SIGKILL)
		}
	}
	<-p.done
	if strings.Contains(p.Log.String(), "WARNING: DATA RACE") {
		p.t.Errorf("%s has a data race", p.Cmd)
	}
	if p.t.Failed() {
		p.t.Logf("%s: %v\n%s", p.Cmd, p.err, &p.Log)
	}
}

// Signal sends a signal to the process, unless it has ended.
func (p *Process) Signal(s syscall.Signal) { _ = p.Cmd.Process.Signal(s) }

// Ended reports whether it has.
func (p *Process) Ended() bool { return p.EndsWithin(0) }

// State says how the process fares.
func (p *Process) State() string {
	if p.Ended() {
		return fmt.Sprint("has ended: ", p.err)
	}
	return "runs"
}

// EndsWithin waits for the end of the process, and reports whether it came.
func (p *Process) EndsWithin(d time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(d):
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Wait returns how the process ended.
func (p *Process) Wait() error {
	p.t.Helper()
	require.True(p.t, p.EndsWithin(Patience), "%s does not end", p.Cmd)
	return p.err
}

// Stop ends a process that has to end well on SIGTERM.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	require.NoError(p.t, p.Wait(), "%s", p.Cmd)
}

// WaitLog waits until the process has printed text.
func (p *Process) WaitLog(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		return strings.Contains(p.Log.String(), text) || p.Ended()
	}, Patience, Tick, "%s does not print %q", p.Cmd, text)
	require.Contains(p.t, p.Log.String(), text, "%s %s", p.Cmd, p.State())
}

// Descriptors counts those that the process has open.
func (p *Process) Descriptors() int {
	p.t.Helper()
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.Cmd.Process.Pid), "fd"))
	require.NoError(p.t, err)
	return len(entries)
}

// CPU returns the time that the process has computed so far, in the kernel and
// outside of it.
func (p *Process) CPU() time.Duration {
	p.t.Helper()
	// The name, in parentheses, may hold anything.
	_, fields, _ := strings.Cut(p.read("stat"), ") ")
	var user, system int64
	_, err := fmt.Sscan(strings.Join(strings.Fields(fields)[11:13], " "), &user, &system)
	require.NoError(p.t, err, fields)
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

// PeakMemory returns the most that was resident of the process at any time, in bytes.
func (p *Process) PeakMemory() (n int64) {
	p.t.Helper()
	_, line, _ := strings.Cut(p.read("status"), "VmHWM:")
	_, err := fmt.Sscan(line, &n)
	require.NoError(p.t, err)
	return n << 10
}

// read returns a file of proc(5) on the process.
func (p *Process) read(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Cmd.Process.Pid), name))
	require.NoError(p.t, err)
	return string(b)
}

// Output is what a process has printed so far.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write adds to it.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

// String returns all of it.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
