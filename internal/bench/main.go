// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench measures the virtual network side by side with the program that
// a user would run instead, gvproxy with gvforwarder, alternating in one run:
//
//	make bench
//
// It needs Linux, root and iperf3. Guests are network namespaces of its own; all
// traffic stays on this machine. Only ratios within one run mean something: it
// prints them, of the medians, and with -json the figures themselves.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A variant is a host and a guest program that talk to each other.
type variant struct {
	name        string
	host, guest program
}

// A result is what one variant did in one round: rates in Gbit/s, round trip in
// microseconds, memory in MiB.
type result map[string]float64

var columns = []struct {
	name        string
	lowerBetter bool
	flags       []string // of iperf3; nil: measured otherwise
}{
	{"up", false, []string{}},
	{"down", false, []string{"-R"}},
	{"up ×4", false, []string{"-P", "4"}},
	{"down ×4", false, []string{"-R", "-P", "4"}},
	{"ping µs", true, nil},
	{"host MiB", true, nil},
}

func main() {
	rounds := flag.Int("rounds", 5, "how often each variant is measured")
	seconds := flag.Int("seconds", 2, "how long one transfer takes")
	mtu := flag.Int("mtu", 1500, "MTU of the network")
	asJSON := flag.Bool("json", false, "print every figure as JSON instead of the table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	results, variants, err := run(ctx, *rounds, *seconds, *mtu)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if *asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(results)
		return
	}
	printTable(results, variants)
}

// run measures every variant once a round, so that what the machine does
// meanwhile happens to all of them.
func run(ctx context.Context, rounds, seconds, mtu int) (map[string][]result, []variant, error) {
	if os.Geteuid() != 0 {
		return nil, nil, fmt.Errorf("namespaces and taps need root: run it with sudo")
	}
	dir, err := os.MkdirTemp("", "guestnet-bench")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	variants, err := build(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	results := map[string][]result{}
	for round := range rounds {
		for _, v := range variants {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, rounds, v.name)
			r, err := measure(ctx, dir, v, time.Duration(seconds)*time.Second, mtu)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", v.name, err)
			}
			results[v.name] = append(results[v.name], r)
		}
	}
	return results, variants, nil
}

// printTable shows the median of each figure, and its ratio to the first
// variant's.
func printTable(results map[string][]result, variants []variant) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	header := []string{"host + guest"}
	for _, c := range columns {
		header = append(header, c.name)
	}
	_, _ = fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, v := range variants {
		row := []string{v.name}
		for _, c := range columns {
			m := median(results[v.name], c.name)
			row = append(row, fmt.Sprintf("%.2f (%.2f×)", m, m/median(results[variants[0].name], c.name)))
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush()
}

func median(rs []result, column string) float64 {
	var v []float64
	for _, r := range rs {
		v = append(v, r[column])
	}
	slices.Sort(v)
	return v[len(v)/2]
}
