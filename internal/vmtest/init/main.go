// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command init is the first process of a test machine: it makes the system
// usable, runs programs side by side, says how they ended and stops the machine.
// In the outer machine of a pair, the inner machine counts as a program.
//
// The kernel gives it the arguments after "--" on its command line:
//
//	init [-nest CID] PROGRAM [ARGUMENT…] [, PROGRAM [ARGUMENT…]]…
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/vmtest/qemu"
)

func main() {
	nest := flag.Uint("nest", 0, "resume the inner machine, and give it a vsock device with this `CID`")
	flag.Parse()

	err := prepare()
	if err == nil {
		err = run(flag.Args(), *nest)
	}
	code := 0
	if err != nil {
		say("init:", err)
		code = 1
	}
	say(fmt.Sprintf(qemu.Exit, code))
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // wait until the console has it
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func say(words ...any) { _, _ = fmt.Fprintln(os.Stdout, words...) }

// run runs what it is told until all of it has ended, or one of it has failed:
// the others would only wait for that one.
func run(programs []string, nest uint) error {
	var running errgroup.Group
	failed := make(chan error, 1)
	start := func(f func() error) {
		running.Go(func() error {
			err := f()
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
			return err
		})
	}
	if nest != 0 {
		start(func() error { return resume(nest) })
	}
	for len(programs) > 0 {
		end := slices.Index(append(programs, ","), ",")
		argv := programs[:end]
		programs = programs[min(end+1, len(programs)):]
		start(func() error { return execute(argv) })
	}
	go func() { failed <- running.Wait() }()
	return <-failed
}

// execute runs a program, its name before each line that it prints.
func execute(argv []string) error {
	name := filepath.Base(argv[0])
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // the machine ends with it
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		say(name+":", lines.Text())
	}
	if err := errors.Join(cmd.Wait(), lines.Err()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// prepare mounts the usual file systems, loads the modules and sets lo up.
func prepare() error {
	for dir, fs := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs", "/tmp": "tmpfs"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fs, dir, fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko") // sorted
	if err != nil {
		return err
	}
	for _, path := range modules {
		if err := load(path); err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo"}})
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// resume runs the inner machine, with "inner: " before each line of its console.
func resume(cid uint) error {
	state, err := os.Open("/inner/state")
	if err != nil {
		return err
	}
	defer state.Close() //nolint:errcheck // only read
	command, err := os.ReadFile("/inner/command")
	if err != nil {
		return err
	}
	code, err := qemu.Machine{
		Command:  append(strings.Split(string(command), "\n"), "-incoming", "fd:3"),
		State:    state,
		OnParked: []string{fmt.Sprintf("device_add vhost-vsock-pci,guest-cid=%d", cid)},
		Line:     func(line string) { say("inner:", line) },
	}.Run(context.Background())
	if err == nil && code != 0 {
		err = fmt.Errorf("the inner machine ended with exit code %d", code)
	}
	return err
}
