// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package qemu runs one QEMU whose serial console is its standard output. The
// host of the tests uses it, and so does the outer machine for the inner one.
package qemu

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
)

// Program is the name of the emulator.
const Program = "qemu-system-x86_64"

// What a machine says on its console, at the end of a line.
const (
	Parked = "vmtest: parked"  // a program waits for a vsock device
	Exit   = "vmtest: exit %d" // the end: 0 if all programs succeeded
)

// A Machine is one QEMU to run.
type Machine struct {
	Command  []string          // QEMU and its arguments, all but the console and the monitor
	State    *os.File          // nil, or what to resume: the machine's descriptor 3
	OnParked []string          // what to tell the monitor when the console says Parked
	Line     func(line string) // is called with each line of the console
}

// Run runs the machine until it ends or ctx does, and returns the exit code
// that its init program said; -1 is none.
func (m Machine) Run(ctx context.Context) (code int, err error) {
	// The kernel kills QEMU with the thread that started it: even a test that
	// panics leaves no machine behind.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	dir, err := os.MkdirTemp("", "qemu")
	if err != nil {
		return -1, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // nothing depends on it
	socket := filepath.Join(dir, "monitor")
	args := append(slices.Clone(m.Command[1:]), "-serial", "stdio", "-monitor", "unix:"+socket+",server=on,wait=off")
	cmd := exec.CommandContext(ctx, m.Command[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if m.State != nil {
		cmd.ExtraFiles = []*os.File{m.State}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	console, err := cmd.StdoutPipe()
	if err != nil {
		return -1, err
	}
	if err := cmd.Start(); err != nil {
		return -1, err
	}

	code = -1
	var told <-chan string
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if _, scanErr := fmt.Sscanf(line, Exit, &code); scanErr == nil {
			continue
		}
		if !strings.HasSuffix(line, Parked) {
			m.Line(line)
		} else if told == nil && m.OnParked != nil {
			told, err = tell(ctx, socket, m.OnParked)
		}
	}
	err = errors.Join(err, lines.Err(), cmd.Wait(), context.Cause(ctx))
	if told != nil {
		if answer := <-told; strings.Contains(answer, "Error") {
			err = errors.Join(err, errors.New(answer))
		}
	}
	if err != nil {
		err = fmt.Errorf("qemu: %w: %s", err, &stderr)
	}
	return code, err
}

// AwaitVsock is for the inner machine's program: it returns when the machine has
// a vsock device with that CID. 0 waits for none.
func AwaitVsock(cid uint32) {
	for cid != 0 {
		if is, err := vsock.ContextID(); err == nil && is == cid {
			return
		}
		_, _ = fmt.Fprintln(os.Stdout, Parked)
		time.Sleep(200 * time.Millisecond) //nolint:forbidigo // nothing tells of the device
	}
}

// tell gives commands to the monitor. All that it says, until QEMU ends, comes
// through the channel.
func tell(ctx context.Context, socket string, commands []string) (<-chan string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, strings.Join(commands, "\n")+"\n"); err != nil {
		_ = conn.Close()
		return nil, err
	}
	told := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(conn) // until QEMU ends
		_ = conn.Close()
		told <- string(all)
	}()
	return told, nil
}
