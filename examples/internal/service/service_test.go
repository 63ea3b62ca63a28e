// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service_test

import (
	"bytes"
	"context"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func TestServe(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no unixgram sockets: run this on Linux or macOS")
	}
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // TempDir's are too long for a socket on macOS
	require.NoError(t, err)
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the system's own place
	manager, err := new(net.ListenConfig).ListenPacket(t.Context(), "unixgram", filepath.Join(dir, "notify"))
	require.NoError(t, err)
	defer manager.Close() //nolint:errcheck // the end
	require.NoError(t, manager.SetDeadline(time.Now().Add(time.Minute)))
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	told := func() string {
		buf := make([]byte, 4096)
		n, _, err := manager.ReadFrom(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var log bytes.Buffer
	b := &socketbridge.Bridge{
		Filter: socketbridge.AllowAll(),
		Dial:   socketbridge.DialUnix(filepath.Join(dir, "gone")),
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- service.Serve(ctx, b, ln, "at\nwork") }()
	require.Equal(t, "READY=1\nSTATUS=at; work", told())
	cancel()
	require.Equal(t, "STOPPING=1\nSTATUS=waiting for 0 connections to end", told())
	require.NoError(t, <-ended)
	require.Contains(t, log.String(), "msg=ended stats.accepted=0")
}
