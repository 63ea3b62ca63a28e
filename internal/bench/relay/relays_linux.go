// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// An address is "unix:PATH" or "tcp:HOST:PORT".
type address string

func (a address) network() string { n, _, _ := strings.Cut(string(a), ":"); return n }
func (a address) where() string   { _, w, _ := strings.Cut(string(a), ":"); return w }

func (a address) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, a.network(), a.where())
}

func (a address) listen(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, a.network(), a.where())
}

// A relay is a program between two addresses.
type relay struct {
	name  string
	args  func(listen, target address) []string // nil: no relay at all
	forks bool                                  // a process for each connection
	files int                                   // open for each connection; 0: two
}

var relays = []relay{
	{name: "direct"},
	{name: "io.Copy", files: 6, args: self("copy")},
	{name: "socketbridge", args: self("bridge")},
	{name: "systemd-socket-proxyd", files: 6, args: func(listen, target address) []string {
		return []string{"systemd-socket-activate", "--listen=" + listen.where(),
			"/lib/systemd/systemd-socket-proxyd", "--connections-max=100000", target.where()}
	}},
	{name: "socat", forks: true, args: func(listen, target address) []string {
		return []string{"socat", "UNIX-LISTEN:" + listen.where() + ",fork,backlog=4096",
			map[string]string{"unix": "UNIX-CONNECT:", "tcp": "TCP:"}[target.network()] + target.where()}
	}},
}

func self(kind string) func(listen, target address) []string {
	return func(listen, target address) []string {
		return []string{"/proc/self/exe", "-relay", kind, string(listen), string(target)}
	}
}

// beRelay is what the relays in Go do, each in a process of its own.
func beRelay(ctx context.Context, kind string, listen, target address) error {
	if kind == "bridge" {
		b := socketbridge.Bridge{Listen: listen.listen, Dial: target.dial, Filter: socketbridge.AllowUID(uint32(os.Getuid()))}
		return b.Run(ctx)
	}
	ln, err := listen.listen(ctx)
	if err != nil {
		return err
	}
	for {
		a, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() { // as it is commonly written
			defer a.Close() //nolint:errcheck // the process is measured, and killed
			b, err := target.dial(ctx)
			if err != nil {
				return
			}
			defer b.Close() //nolint:errcheck // as above
			done := make(chan struct{})
			go func() { copyHalf(b, a); close(done) }()
			copyHalf(a, b)
			<-done
		}()
	}
}

func copyHalf(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	_ = dst.(socketbridge.HalfCloser).CloseWrite()
}

// A process is a relay that runs.
type process struct {
	cmd    *exec.Cmd // nil: none
	listen address
}

func (r relay) run(ctx context.Context, dir string, target address) (*process, error) {
	if r.args == nil {
		return &process{listen: target}, nil
	}
	p := &process{listen: address("unix:" + filepath.Join(dir, "relay"))}
	_ = os.Remove(p.listen.where())
	args := r.args(p.listen, target)
	p.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: install it (apt-get install socat systemd)", err)
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; { // until it serves
		if conn, err := p.listen.dial(ctx); err == nil {
			_, err = trip(conn)
			_ = conn.Close()
			if err == nil {
				return p, nil
			}
		}
		select {
		case <-ctx.Done():
			p.stop()
			return nil, fmt.Errorf("it does not serve: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (p *process) stop() {
	if p.cmd != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		_ = p.cmd.Wait()
	}
}

// cpu returns the processor time of the relay's processes that there are.
func (p *process) cpu() time.Duration {
	if p.cmd == nil {
		return 0
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var sum time.Duration
	for _, name := range stats {
		stat, _ := os.ReadFile(name)
		_, rest, ok := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 13 || f[2] != strconv.Itoa(p.cmd.Process.Pid) { // of the group
			continue
		}
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		sum += time.Duration(user+system) * tick
	}
	return sum
}

// rss returns the relay's resident memory in KB.
func (p *process) rss() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
		}
	}
	return 0, fmt.Errorf("no VmRSS in the status of process %d", p.cmd.Process.Pid)
}
