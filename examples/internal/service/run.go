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
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%q is no flag; -help lists them", flags.Arg(0))
	}
	return err
}

// Logger returns the log of a program, and adds the flag -v, for more of it, to flags.
func Logger(flags *flag.FlagSet, stderr io.Writer, usage string) *slog.Logger {
	level := new(slog.LevelVar)
	flags.BoolFunc("v", usage, func(string) error { level.Set(slog.LevelDebug); return nil })
	return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
}
