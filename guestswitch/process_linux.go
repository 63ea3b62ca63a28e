// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killAfter is how long a process may take to end after SIGTERM.
const killAfter = 2 * time.Second

// process runs argv inside the tap's namespace, in a process group of its own,
// until it exits or ctx ends: then the group gets SIGTERM, and SIGKILL later. In
// either case whatever is left of the group is killed, and the process reaped.
func (s *session) process(ctx context.Context, argv, env []string) error {
	var out lastLine
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(cmd.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	out.print = func(line []byte) { s.log.Debug("guestswitch: "+argv[0], "output", string(line)) }
	if err := s.tap.ns.do(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	// The group is killed before its leader is reaped: until then its number
	// belongs to nobody else.
	for unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	err := cmd.Wait()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil // ErrWaitDelay: a daemon of another group holds its output
	}
	return fmt.Errorf("%s: %w: %s", argv[0], err, out.line)
}

// lastLine hands what is printed on by lines, and keeps the last.
type lastLine struct {
	print      func(line []byte)
	part, line []byte
}

func (l *lastLine) Write(p []byte) (int, error) {
	for rest := p; ; {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		const most = 1 << 10
		l.part = append(l.part, line[:min(len(line), most-min(most, len(l.part)))]...)
		if !found {
			return len(p), nil
		}
		rest = after
		if len(l.part) > 0 {
			l.print(l.part)
			l.line, l.part = l.part, nil
		}
	}
}
