// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// One line says what went wrong and who says so, and the exit code whose mistake it is.
func TestRun(t *testing.T) {
	fails := errors.New("fails")
	for name, c := range map[string]struct {
		args   []string
		serves error
		code   int
		prints string
	}{
		"clean end":          {nil, nil, 0, ""},
		"help":               {[]string{"-help"}, fails, 0, "usage: test WHAT\n  -size int\n    \t\n"},
		"wrong command line": {[]string{"-size", "x"}, fails, 2, "test: invalid value \"x\" for flag -size: parse error\n"},
		"argument":           {[]string{"more"}, fails, 2, "test: \"more\" is no flag; -help lists them\n"},
		"failure":            {nil, fails, 1, "test: fails\n"},
		"who is known":       {nil, fmt.Errorf("test: %w", fails), 1, "test: fails\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			parse := func(args []string, stderr io.Writer) (size int, err error) {
				flags := flag.NewFlagSet("test", flag.ContinueOnError)
				flags.IntVar(&size, "size", 0, "")
				return size, service.Parse(flags, args, stderr, "WHAT")
			}
			serve := func(context.Context, int) error { return c.serves }
			require.Equal(t, c.code, service.Run(t.Context(), "test", c.args, &stderr, parse, serve))
			require.Equal(t, c.prints, stderr.String())
		})
	}
}

func TestNoServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	require.NoError(t, service.Notify(t.Context(), "READY=1"))
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	require.ErrorContains(t, service.Notify(t.Context(), "READY=1"), "NOTIFY_SOCKET")
	require.NoError(t, service.Notify(t.Context(), ""), "nothing to say")

	var log bytes.Buffer
	service.Tell(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), "READY=1")
	require.Contains(t, log.String(), "was not told")
}

func TestStatusIsOneAssignment(t *testing.T) {
	require.Equal(t, "STATUS=one; READY=1", service.Status("one\nREADY=1"))
}

func TestAddress(t *testing.T) {
	for address, want := range map[string][2]string{
		"unix:/run/p.sock":                 {"unix", "/run/p.sock"},
		"unix:///run/p.sock":               {"unix", "/run/p.sock"},
		"vsock:6660":                       {"vsock", "6660"},
		"vsock://:6660":                    {"vsock", ":6660"},
		"npipe:////./pipe/docker_engine":   {"npipe", "//./pipe/docker_engine"},
		`npipe:\\.\pipe\docker_engine`:     {"npipe", `\\.\pipe\docker_engine`},
		"tcp:[::1]:2375":                   {"tcp", "[::1]:2375"},
		"hyperv":                           {"hyperv", ""},
		"hyperv:{ac2d15b8-7d3a-4b8e-9c51}": {"hyperv", "{ac2d15b8-7d3a-4b8e-9c51}"},
	} {
		scheme, rest := service.Address(address)
		require.Equal(t, want, [2]string{scheme, rest}, address)
	}
}

func TestFlags(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want *socketbridge.Bridge
		err  string
	}{
		"none":            {nil, &socketbridge.Bridge{}, ""},
		"all":             {[]string{"-drain", "1m", "-idle", "1h", "-max-conns", "7"}, &socketbridge.Bridge{DrainTimeout: time.Minute, IdleTimeout: time.Hour, MaxConns: 7}, ""},
		"cut at once":     {[]string{"-drain", "0"}, &socketbridge.Bridge{DrainTimeout: 1}, ""},
		"until they end":  {[]string{"-drain", "-1s"}, &socketbridge.Bridge{DrainTimeout: -time.Second}, ""},
		"wrong drain":     {[]string{"-drain", "soon"}, nil, "-drain"},
		"wrong idle":      {[]string{"-idle", "5"}, nil, "-idle"},
		"wrong max-conns": {[]string{"-max-conns", "many"}, nil, "-max-conns"},
	} {
		t.Run(name, func(t *testing.T) {
			var b socketbridge.Bridge
			flags := flag.NewFlagSet("test", flag.ContinueOnError)
			flags.SetOutput(io.Discard)
			service.Flags(flags, &b)
			if err := flags.Parse(c.args); c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.Equal(t, c.want, &b)
		})
	}
}

// Sockets are inherited by the process that they were meant for, and no other. How
// one is taken is shown by rdd-guest.
func TestNoListener(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for name, c := range map[string]struct{ count, pid, err string }{
		"not activated":      {"", "", ""},
		"not this process":   {"1", "1", ""},
		"no process at all":  {"1", "", ""},
		"more than one":      {"2", own, "serves one socket"},
		"less than one":      {"0", own, "serves one socket"},
		"not what it claims": {"many", own, "serves one socket"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("LISTEN_FDS", c.count)
			t.Setenv("LISTEN_PID", c.pid)
			ln, err := service.Listener()
			require.Nil(t, ln)
			if c.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.err)
			}
		})
	}
}
