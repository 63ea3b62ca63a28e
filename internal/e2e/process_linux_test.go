// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// patience only keeps a test that hangs from hanging for ever.
	patience = 30 * time.Second
	tick     = 20 * time.Millisecond
)

// A process runs for as long as its test, or until it is told to stop.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  output
	done chan struct{}
	err  error // once done is closed
}

// start runs a program. When the test ends it gets SIGTERM, and has to end.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: strings.Join(args, " "), done: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.Env = append(p.cmd.Environ(), "GORACE=atexit_sleep_ms=0") // a second by default
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = patience
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(p.cleanup)
	return p
}

func (p *process) cleanup() {
	if !p.ended() {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGTERM)
		if !p.endsWithin(patience) {
			p.t.Errorf("%s does not end on SIGTERM", p.name)
			p.signal(syscall.SIGQUIT) // a Go program says what its goroutines do
			p.endsWithin(time.Second)
		}
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // and what it may have left behind
	<-p.done
	if strings.Contains(p.log.String(), "WARNING: DATA RACE") {
		p.t.Errorf("%s has a data race", p.name)
	}
	if p.t.Failed() {
		p.t.Logf("%s: %v\n%s", p.name, p.err, &p.log)
	}
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// state says how the process fares.
func (p *process) state() string {
	if p.ended() {
		return fmt.Sprint("has ended: ", p.err)
	}
	return "runs"
}

func (p *process) endsWithin(d time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(d):
		return false
	}
}

// wait returns how the process ended.
func (p *process) wait() error {
	p.t.Helper()
	require.True(p.t, p.endsWithin(patience), "%s does not end", p.name)
	return p.err
}

// stop ends a process that has to end well.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	require.NoError(p.t, p.wait(), p.name)
}

// waitLog waits until the process has printed text.
func (p *process) waitLog(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		return strings.Contains(p.log.String(), text) || p.ended()
	}, patience, tick, "%s does not print %q", p.name, text)
	require.Contains(p.t, p.log.String(), text, "%s %s", p.name, p.state())
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
