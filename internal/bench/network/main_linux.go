// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == "load" { // a process of ours inside a namespace
		err = load(ctx, os.Args[2:], os.Stdout)
	} else {
		err = bench(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds, seconds int
	out             string
	variants        []variant
	tests           []test
}

func bench(ctx context.Context, args []string) error {
	var o options
	var only, columns, from string
	flags := flag.NewFlagSet("network", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 5, "how often each variant is measured")
	flags.IntVar(&o.seconds, "seconds", 2, "how long one transfer takes")
	flags.StringVar(&only, "only", "", "the `variants` to measure, of "+keys(variants)+" (all)")
	flags.StringVar(&columns, "columns", "", "the `columns` to measure, of "+keys(tests)+" (all)")
	flags.StringVar(&o.out, "out", "", "a `file` without extension: every figure goes to FILE.json, a chart to FILE.svg")
	flags.StringVar(&from, "from", "", "measure nothing: table and chart are those of this `file`, a FILE.json")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("%q is no flag; -help lists them", flags.Arg(0))
	case o.rounds < 1 || o.seconds < 1:
		return errors.New("-rounds and -seconds are at least 1")
	}
	var err1, err2 error
	o.variants, err1 = choose(variants, only)
	o.tests, err2 = choose(tests, columns)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if from != "" {
		return redraw(os.Stdout, from, o.out)
	}
	return run(ctx, o)
}

// keyed is what a flag chooses from.
type keyed interface{ id() string }

func keys[T keyed](all []T) string {
	var names []string
	for _, x := range all {
		names = append(names, x.id())
	}
	return strings.Join(names, ",")
}

// choose returns those that the list names, in their own order; all if it is empty.
func choose[T keyed](all []T, list string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(x T) bool { return x.id() == name }) {
			return nil, fmt.Errorf("there is no %q: use some of %s", name, keys(all))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(x T) bool { return !slices.Contains(wanted, x.id()) }), nil
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces and taps need root: run it with sudo")
	}
	if err := programsFor(o.variants); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "guestnet-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := build(ctx, dir, o.variants); err != nil {
		return err
	}
	report := &sidebyside.Report{Title: "host and guest", About: about(ctx, o), Base: o.variants[0].name}
	var measured []sidebyside.Variant
	for _, v := range o.variants {
		report.Variants = append(report.Variants, v.name)
		measured = append(measured, sidebyside.Variant{Name: v.name, Measure: func(ctx context.Context) (sidebyside.Result, error) {
			return measure(ctx, dir, v, o)
		}})
	}
	for _, t := range append(slices.Clone(o.tests), always) {
		report.Columns = append(report.Columns, t.columns...)
	}
	results, err := sidebyside.Run(ctx, o.rounds, measured)
	report.Add(results)
	if ctx.Err() != nil {
		o.out = "" // half a run is no result
	}
	return errors.Join(err, output(os.Stdout, report, o.out))
}

// measure sets one variant up, measures it, and takes it down. What fails leaves
// out the figures of one test.
func measure(ctx context.Context, dir string, v variant, o options) (sidebyside.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute+time.Duration(30*o.seconds)*time.Second)
	defer cancel()
	r := sidebyside.Result{}
	l, err := newLab(ctx, dir, v, o.seconds)
	if err != nil {
		return r, err
	}
	defer l.close()
	var errs []error
	for _, t := range inOrder(o.tests) {
		if err := t.run(l, r); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.key, err))
		}
	}
	return r, errors.Join(errs...)
}

func redraw(w io.Writer, from, out string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	report, err := sidebyside.Read(file)
	_ = file.Close()
	if err != nil {
		return err
	}
	return output(w, report, out)
}

// output writes the files, and prints the table and what the goals came to.
func output(w io.Writer, r *sidebyside.Report, out string) (err error) {
	if out != "" {
		err = errors.Join(write(out+".json", r.WriteJSON), write(out+".svg", func(file io.Writer) error {
			return r.WriteSVG(file, panels, ours...)
		}))
	}
	return errors.Join(err, r.WriteTable(w), writeGoals(w, r))
}

func write(name string, to func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(to(file), file.Close())
}
