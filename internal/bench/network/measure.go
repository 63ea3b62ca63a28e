// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

// A program is a command line, in which {api}, {frames}, {netns} and {mtu} are
// filled in.
type program []string

// build compiles the programs into dir.
func build(ctx context.Context, dir string) ([]pair, error) {
	const peers = "github.com/containers/gvisor-tap-vsock/cmd/"
	for out, args := range map[string][]string{
		"gvproxy":     {"build", "-C", "internal/compat/gvtv", "-o", filepath.Join(dir, "gvproxy"), peers + "gvproxy"},
		"gvforwarder": {"build", "-C", "internal/compat/gvtv", "-o", filepath.Join(dir, "gvforwarder"), peers + "vm"},
		"hostswitch":  {"build", "-o", filepath.Join(dir, "hostswitch"), "./examples/hostswitch"},
		"guestswitch": {"build", "-o", filepath.Join(dir, "guestswitch"), "./examples/guestswitch"},
	} {
		if text, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w: %s", out, err, text)
		}
	}
	in := func(name string, args ...string) program { return append(program{filepath.Join(dir, name)}, args...) }
	gvproxy := in("gvproxy", "-mtu", "{mtu}", "-listen", "unix://{api}", "-ssh-port", "-1")
	hostswitch := in("hostswitch", "-mtu", "{mtu}", "-listen", "unix://{frames}", "-api", "unix://{api}")
	// gvforwarder has no namespace of its own to go to; -mtu is its buffer.
	gvforwarder := append(program{"ip", "netns", "exec", "{netns}"},
		in("gvforwarder", "-mtu", "65550", "-url", "unix://{api}", "-iface", "eth0", "-stop-if-exist", "none")...)
	guestswitch := in("guestswitch", "-connect", "unix://{frames}", "-netns", "/run/netns/{netns}")
	return []pair{
		{"gvproxy + gvforwarder", gvproxy, gvforwarder},
		{"hostswitch + gvforwarder", hostswitch, gvforwarder},
		{"hostswitch + guestswitch", hostswitch, guestswitch},
	}, nil
}

// measure sets one variant up, measures it, and takes it down.
func measure(ctx context.Context, dir string, v pair, transfer time.Duration, mtu int) (r sidebyside.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+4*3*transfer)
	defer cancel()
	netns := fmt.Sprintf("gnbench%d", os.Getpid())
	if err := command(ctx, "ip", "netns", "add", netns); err != nil {
		return nil, err
	}
	defer func() { _ = command(context.WithoutCancel(ctx), "ip", "netns", "del", netns) }()
	// gvforwarder has udhcpc's script write resolv.conf: "ip netns exec" gives it
	// this one instead of the machine's.
	etc := filepath.Join("/etc/netns", netns)
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(etc) }()
	if err := os.WriteFile(filepath.Join(etc, "resolv.conf"), nil, 0o644); err != nil {
		return nil, err
	}
	sockets, err := os.MkdirTemp(dir, "s")
	if err != nil {
		return nil, err
	}
	fill := strings.NewReplacer("{api}", sockets+"/api", "{frames}", sockets+"/frames", "{netns}", netns, "{mtu}", strconv.Itoa(mtu))
	start := func(p program) (*exec.Cmd, func(), error) {
		var args []string
		for _, a := range p {
			args = append(args, fill.Replace(a))
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		return cmd, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, cmd.Start()
	}
	_, stopServer, err := start(program{"iperf3", "-s", "-B", "127.0.0.1", "-p", "5999"})
	if err != nil {
		return nil, err
	}
	defer stopServer()
	host, stopHost, err := start(v.host)
	if err != nil {
		return nil, err
	}
	defer stopHost()
	if err := await(ctx, "the host", func() bool { _, err := os.Stat(sockets + "/api"); return err == nil }); err != nil {
		return nil, err
	}
	_, stopGuest, err := start(v.guest)
	if err != nil {
		return nil, err
	}
	defer stopGuest()
	if err := await(ctx, "a lease", func() bool {
		out, _ := exec.CommandContext(ctx, "ip", "-n", netns, "route").Output()
		return strings.Contains(string(out), "default")
	}); err != nil {
		return nil, err
	}
	r = sidebyside.Result{}
	for _, c := range columns {
		if c.flags == nil {
			continue
		}
		if r[c.name], err = iperf(ctx, netns, transfer, c.flags); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if r["ping µs"], err = ping(ctx, netns); err != nil {
		return nil, err
	}
	r["host MiB"], err = peakMemory(host.Process.Pid)
	return r, err
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func await(ctx context.Context, what string, ok func() bool) error {
	for tick := time.NewTicker(50 * time.Millisecond); !ok(); {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no sign of %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// iperf returns the rate of one transfer to the host's loopback, in Gbit/s.
func iperf(ctx context.Context, netns string, d time.Duration, flags []string) (float64, error) {
	args := []string{"netns", "exec", netns, "iperf3", "-J", "-c", "192.168.127.254", "-p", "5999", "-t", strconv.Itoa(int(d.Seconds()))}
	out, err := exec.CommandContext(ctx, "ip", append(args, flags...)...).Output()
	if err != nil {
		return 0, fmt.Errorf("iperf3: %w: %s", err, out)
	}
	var report struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return 0, fmt.Errorf("iperf3: %w", err)
	}
	return report.End.Received.BitsPerSecond / 1e9, nil
}

var pingTimes = regexp.MustCompile(`time=([0-9.]+) ms`)

// ping returns the median round trip to the gateway, in microseconds.
func ping(ctx context.Context, netns string) (float64, error) {
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", netns, "ping", "-c", "50", "-i", "0.01", "192.168.127.1").Output()
	if err != nil {
		return 0, fmt.Errorf("ping: %w: %s", err, out)
	}
	var times []float64
	for _, m := range pingTimes.FindAllStringSubmatch(string(out), -1) {
		ms, _ := strconv.ParseFloat(m[1], 64)
		times = append(times, ms)
	}
	if len(times) == 0 {
		return 0, fmt.Errorf("ping: no answer: %s", out)
	}
	return sidebyside.Percentile(times, 50) * 1000, nil
}

// peakMemory returns the largest resident size of a process so far, in MiB.
func peakMemory(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in the status of process %d", pid)
}
