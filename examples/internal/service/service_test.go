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
	"net"
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
		"help":               {[]string{"-help"}, fails, 0, "usage: test WHAT\n  -size int\n    \t\nAn address unix:PATH may also be written as a URL, unix:///PATH.\n"},
		"wrong command line": {[]string{"-size", "x"}, fails, 2, "test: invalid value \"x\" for flag -size: parse error\n"},
		"no such flag":       {[]string{"-bogus"}, fails, 2, "test: flag provided but not defined: -bogus; -help lists those that are\n"},
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
		"unix:p.sock":                      {"unix", "p.sock"},
		"unix://p.sock":                    {"unix", ""},
		"unix://":                          {"unix", ""},
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

// What is not there is left out of the log.
func TestLogger(t *testing.T) {
	var out bytes.Buffer
	unnamed := &net.UnixAddr{Net: "unix", Name: "@"}
	service.NewLogger(&out, slog.LevelInfo).Info("gone", "peer", "unix @", "peer", unnamed, "api", "", "error", nil, "up", 0)
	require.Regexp(t, "msg=gone up=0\n$", out.String())
	out.Reset()
	service.NewLogger(&out, slog.LevelInfo).Info("gone", "peer", "unix /s", "error", io.EOF)
	require.Contains(t, out.String(), `msg=gone peer="unix /s" error=EOF`)
}

func TestNumber(t *testing.T) {
	for s, want := range map[string]int{"5": 5, "7": 7, "4": 0, "8": 0, "-5": 0, "4294967301": 0, "abc": 0, "": 0} {
		var n int
		flags := flag.NewFlagSet("test", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		service.Number(flags, "n", &n, 5, 7, "")
		if err := flags.Parse([]string{"-n", s}); want == 0 {
			require.ErrorContains(t, err, "-n: write a number from 5 to 7", s)
		} else {
			require.NoError(t, err)
		}
		require.Equal(t, want, n, s)
	}
}

func TestNeeds(t *testing.T) {
	for says, args := range map[string][]string{
		"": {"-b=x"}, "no error": {"-a=x", "-b="}, "-a goes with -b": {"-a=x"},
	} {
		flags := flag.NewFlagSet("test", flag.ContinueOnError)
		_, _ = flags.String("a", "", ""), flags.String("b", "x", "")
		require.NoError(t, flags.Parse(args))
		if err := service.Needs(flags, "a", "b"); says == "-a goes with -b" {
			require.ErrorContains(t, err, says)
		} else {
			require.NoError(t, err)
		}
	}
}

func TestDialUnix(t *testing.T) {
	dir := t.TempDir()
	_, err := service.DialUnix("")
	require.ErrorContains(t, err, "write a path")
	_, err = service.DialUnix(dir)
	require.EqualError(t, err, dir+" is no socket")
	dial, err := service.DialUnix(filepath.Join(dir, "later"))
	require.NoError(t, err)
	require.NotNil(t, dial)
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
