// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
)

// Run is the life of a program: parse reads its command line, and serve does what that
// says until ctx ends. The error of either is printed, after the name of the program.
// Run returns the exit code: 0 for a clean end, 1 for a failure, 2 for a wrong command
// line.
func Run[T any](
	ctx context.Context, name string, args []string, stderr io.Writer,
	parse func(args []string, stderr io.Writer) (T, error), serve func(context.Context, T) error,
) int {
	code := 2
	options, err := parse(args, stderr)
	if err == nil {
		code, err = 1, serve(ctx, options)
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	// A library that has the name of the program says it already.
	_, _ = fmt.Fprintf(stderr, "%s: %s\n", name, strings.TrimPrefix(err.Error(), name+": "))
	return code
}

// Parse reads a command line that has nothing but flags. It prints no errors, which
// [Run] does, and with -help how the program is used.
func Parse(flags *flag.FlagSet, args []string, stderr io.Writer, usage string) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintf(stderr, "usage: %s %s\n", flags.Name(), usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		_, _ = io.WriteString(stderr, "An address unix:PATH may also be written as a URL, unix:///PATH.\n")
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%q is no flag; -help lists them", flags.Arg(0))
	case err != nil && strings.HasPrefix(err.Error(), "flag provided but not defined"):
		err = fmt.Errorf("%w; -help lists those that are", err)
	}
	return err
}

// Number adds to flags one for a number from least to most, which sets n.
func Number[T int | uint32](flags *flag.FlagSet, name string, n *T, least, most T, usage string) {
	flags.Func(name, usage, func(s string) error {
		v, err := strconv.ParseUint(s, 10, 32)
		if err != nil || v < uint64(least) || v > uint64(most) {
			return fmt.Errorf("write a number from %d to %d", least, most)
		}
		*n = T(v)
		return nil
	})
}

// Needs says that a flag was given without the one that it is for.
func Needs(flags *flag.FlagSet, name, other string) error {
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given[name] && !given[other] {
		return fmt.Errorf("-%s goes with -%s: add that, or leave it out", name, other)
	}
	return nil
}

// Logger returns the log of a program, and adds the flag -v, for more of it, to flags.
func Logger(flags *flag.FlagSet, stderr io.Writer, usage string) *slog.Logger {
	level := new(slog.LevelVar)
	flags.BoolFunc("v", usage, func(string) error { level.Set(slog.LevelDebug); return nil })
	return NewLogger(stderr, level)
}

// NewLogger returns a log for people.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: tidy}))
}

// tidy leaves out what there is not: no error, no text, or a unix peer without a name.
// It would read like a fault.
func tidy(_ []string, a slog.Attr) slog.Attr {
	text := "something"
	switch v := a.Value.Any().(type) {
	case nil:
		text = ""
	case string:
		text = strings.TrimPrefix(v, "unix ")
	case net.Addr:
		text = v.String()
	}
	if text == "" || text == "@" {
		return slog.Attr{}
	}
	return a
}
