// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

// Rates are in GB/s, times in microseconds, processor time in seconds of the relay
// for each GB, memory in KB of the relay for each idle connection.
const (
	colUp      = "up GB/s"
	colDown    = "down GB/s"
	colCPU     = "CPU s/GB"
	colTrip    = "1 byte µs"
	colTrip99  = "p99 µs"
	colConnect = "conns/s"
	colIdle    = "idle KB"
)

var columns = []string{colUp, colDown, colCPU, colTrip, colTrip99, colConnect, colIdle}

// A load is how much of everything is measured in a round.
type load struct {
	bytes                    uint64
	trips, connections, idle int
	files                    int // that a process may have open
}

func main() {
	rounds := flag.Int("rounds", 5, "how often each relay is measured")
	mb := flag.Uint64("mb", 512, "MB of a transfer")
	idle := flag.Int("idle", 10_000, "idle connections")
	connections := flag.Int("connections", 4000, "connections made one after the other, by four clients")
	asJSON := flag.Bool("json", false, "print every figure as JSON instead of the tables")
	relay := flag.String("relay", "", "be a relay of this kind, `copy or bridge`, between the two addresses given")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := errors.New("-relay takes two addresses")
	switch {
	case *relay == "":
		err = run(ctx, *rounds, load{bytes: *mb << 20, trips: 5000, connections: *connections, idle: *idle}, *asJSON)
	case flag.NArg() == 2:
		err = beRelay(ctx, *relay, address(flag.Arg(0)), address(flag.Arg(1)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, l load, asJSON bool) error {
	// Each process, the relays too, may have as many open files as there can be.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	l.files = int(min(limit.Max, 1<<20))
	dir, err := os.MkdirTemp("", "guestnet-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, target := range []address{address("unix:" + filepath.Join(dir, "target")), "tcp:127.0.0.1:0"} {
		if err := compare(ctx, rounds, dir, target, l, asJSON); err != nil {
			return err
		}
	}
	return nil
}

// compare measures every relay between a unix socket and the target.
func compare(ctx context.Context, rounds int, dir string, target address, l load, asJSON bool) error {
	server, err := serve(ctx, target)
	if err != nil {
		return err
	}
	defer server.close()
	var variants []sidebyside.Variant
	for _, r := range relays {
		variants = append(variants, sidebyside.Variant{Name: r.name, Measure: func(ctx context.Context) (sidebyside.Result, error) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
			defer cancel()
			return measure(ctx, dir, r, server.address, l)
		}})
	}
	results, err := sidebyside.Run(ctx, rounds, variants)
	if err != nil {
		return err
	}
	return sidebyside.Print(os.Stdout, "unix to "+target.network(), results, variants, columns, relays[1].name, asJSON)
}

// measure has one relay at work, and then a fresh one at rest.
func measure(ctx context.Context, dir string, r relay, target address, l load) (sidebyside.Result, error) {
	result := sidebyside.Result{}
	for _, phase := range []func(context.Context, relay, *process, load, sidebyside.Result) error{work, rest} {
		p, err := r.run(ctx, dir, target)
		if err != nil {
			return nil, err
		}
		err = phase(ctx, r, p, l, result)
		p.stop()
		if err != nil {
			return nil, err
		}
	}
	return result, nil
}

func work(ctx context.Context, _ relay, p *process, l load, result sidebyside.Result) error {
	gb := float64(l.bytes) / 1e9
	up, cpu, err := transfer(ctx, p, upload, l.bytes)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	result[colUp] = gb / up.Seconds()
	if p.cmd != nil {
		result[colCPU] = cpu.Seconds() / gb
	}
	down, _, err := transfer(ctx, p, download, l.bytes)
	if err != nil {
		return fmt.Errorf("down: %w", err)
	}
	result[colDown] = gb / down.Seconds()
	trips, err := roundTrips(ctx, p.listen, l.trips)
	if err != nil {
		return fmt.Errorf("round trips: %w", err)
	}
	result[colTrip], result[colTrip99] = sidebyside.Percentile(trips, 50), sidebyside.Percentile(trips, 99)
	if result[colConnect], err = connections(ctx, p.listen, l.connections); err != nil {
		return fmt.Errorf("connections: %w", err)
	}
	return nil
}

func rest(ctx context.Context, r relay, p *process, l load, result sidebyside.Result) error {
	if p.cmd == nil || r.forks { // 10,000 processes would not be idle at all
		return nil
	}
	kb, err := idle(ctx, p, min(l.idle, (l.files-200)/max(r.files, 2)))
	if err != nil {
		return fmt.Errorf("idle: %w", err)
	}
	result[colIdle] = kb
	return nil
}
