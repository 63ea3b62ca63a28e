// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command network measures the virtual network side by side with the program that
// a user would run instead, gvproxy with gvforwarder, alternating in one run:
//
//	make bench-network
//
// It needs Linux, root and iperf3. Guests are network namespaces of its own; all
// traffic stays on this machine. Only ratios within one run mean something: it
// prints them, of the medians, and with -json the figures themselves.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

// A pair is a host and a guest program that talk to each other.
type pair struct {
	name        string
	host, guest program
}

// Rates are in Gbit/s, the round trip in microseconds, memory in MiB.
var columns = []struct {
	name  string
	flags []string // of iperf3; nil: measured otherwise
}{
	{"up", []string{}},
	{"down", []string{"-R"}},
	{"up ×4", []string{"-P", "4"}},
	{"down ×4", []string{"-R", "-P", "4"}},
	{"ping µs", nil},
	{"host MiB", nil},
}

func main() {
	rounds := flag.Int("rounds", 5, "how often each pair is measured")
	seconds := flag.Int("seconds", 2, "how long one transfer takes")
	mtu := flag.Int("mtu", 1500, "MTU of the network")
	asJSON := flag.Bool("json", false, "print every figure as JSON instead of the table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *rounds, time.Duration(*seconds)*time.Second, *mtu, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, transfer time.Duration, mtu int, asJSON bool) error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces and taps need root: run it with sudo")
	}
	dir, err := os.MkdirTemp("", "guestnet-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	pairs, err := build(ctx, dir)
	if err != nil {
		return err
	}
	var variants []sidebyside.Variant
	for _, p := range pairs {
		variants = append(variants, sidebyside.Variant{Name: p.name, Measure: func(ctx context.Context) (sidebyside.Result, error) {
			return measure(ctx, dir, p, transfer, mtu)
		}})
	}
	results, err := sidebyside.Run(ctx, rounds, variants)
	if err != nil {
		return err
	}
	var names []string
	for _, c := range columns {
		names = append(names, c.name)
	}
	return sidebyside.Print(os.Stdout, "host + guest", results, variants, names, variants[0].Name, asJSON)
}
