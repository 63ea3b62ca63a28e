// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A process is a program in a group of its own: Ctrl-C is for the one that measures,
// which ends the others in turn.
type process struct {
	cmd     *exec.Cmd
	stopped atomic.Bool
	done    chan struct{}
}

// start starts a program. If it ends on its own, ended is told why.
func start(ctx context.Context, ended context.CancelCauseFunc, log string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = out.Close()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := cmd.Wait()
		if !p.stopped.Load() {
			ended(fmt.Errorf("%s has ended: %w: %s", filepath.Base(args[0]), err, tail(log)))
		}
	}()
	return p, nil
}

// tail returns the end of what a program has printed.
func tail(log string) string {
	text, _ := os.ReadFile(log)
	return strings.TrimSpace(string(text[max(0, len(text)-1000):]))
}

// stop kills the group, if it runs, even if it was stopped by a signal.
func (p *process) stop() {
	p.stopped.Store(true)
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.done: // its number may be another's by now
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, s)
	}
}

func (p *process) proc(name string) string {
	return fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name)
}

// cpu returns the user and system time so far.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(p.proc("stat"))
	if err != nil {
		return 0, err
	}
	return cpuTime(string(stat))
}

// memory returns a line of the process's status, in MiB.
func (p *process) memory(name string) (float64, error) {
	status, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return 0, err
	}
	return statusMiB(string(status), name)
}

// forgetPeak sets VmHWM to what is resident now (proc(5), clear_refs).
func (p *process) forgetPeak() error { return os.WriteFile(p.proc("clear_refs"), []byte("5"), 0) }

// command runs a program to its end and returns what it printed.
func command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), errors.Join(err, context.Cause(ctx)), &stderr)
	}
	return out, err
}

func await(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no sign of %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}
