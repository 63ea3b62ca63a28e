// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// patience only keeps a test that hangs from hanging for ever.
	patience = 2 * time.Minute
	tick     = 20 * time.Millisecond
)

// A process runs for as long as its test, or until it ends.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  output // both of its outputs
	done chan struct{}
	err  error // once done is closed
}

// start starts cmd, whose context is that of the test. When the test ends it gets
// SIGTERM, and has to end.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience // then it is killed
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // should the test be killed
	require.NoError(t, cmd.Start())
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		<-p.done
		if strings.Contains(p.log.String(), "WARNING: DATA RACE") {
			t.Errorf("%s has a data race", cmd)
		}
		if t.Failed() {
			t.Logf("%s: %v\n%s", cmd, p.err, &p.log)
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// ended reports whether it has.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait returns how it ended.
func (p *process) wait() error {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		require.FailNow(p.t, "it does not end", "%s", p.cmd)
	}
	return p.err
}

// stop ends a process that has to end well.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	require.NoError(p.t, p.wait(), "%s", p.cmd)
}

// waitLog waits until it has printed text.
func (p *process) waitLog(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		return strings.Contains(p.log.String(), text) || p.ended()
	}, patience, tick, "%s does not print %q", p.cmd, text)
	require.Contains(p.t, p.log.String(), text, "%s", p.cmd)
}

// descriptors counts those that it has open.
func (p *process) descriptors() int {
	p.t.Helper()
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "fd"))
	require.NoError(p.t, err)
	return len(entries)
}

// output is what a process has printed so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
