// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// listen returns the server that the bridge leads to.
func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// dial waits until there is somebody to connect to.
func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	var c net.Conn
	require.Eventually(t, func() (ok bool) {
		var err error
		c, err = socketbridge.DialUnix(path)(t.Context())
		return err == nil
	}, time.Minute, 10*time.Millisecond, path)
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

func accept(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	require.NoError(t, ln.(*net.UnixListener).SetDeadline(time.Now().Add(time.Minute)))
	c, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A program is run in this process, until stop.
func program(t *testing.T, args ...string) (stop func() (code int, stderr string)) {
	ctx, cancel := context.WithCancel(t.Context())
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, args, &stderr) }()
	stop = sync.OnceValues(func() (int, string) { cancel(); return <-code, stderr.String() })
	t.Cleanup(func() { stop() })
	return stop
}

// FAILURES 25: what comes after a half-close comes.
func TestBridge(t *testing.T) {
	dir := servicetest.Dir(t)
	target := listen(t, filepath.Join(dir, "target"))
	stop := program(t, "-listen", "unix:"+filepath.Join(dir, "listen"), "-target", "unix:"+filepath.Join(dir, "target"))
	client := dial(t, filepath.Join(dir, "listen"))
	server := accept(t, target)

	_, err := io.WriteString(client, "question")
	require.NoError(t, err)
	require.NoError(t, client.CloseWrite())
	question, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "question", string(question))
	_, err = io.WriteString(server, "answer")
	require.NoError(t, err)
	require.NoError(t, server.Close())
	answer, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "answer", string(answer))

	code, stderr := stop()
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stderr, "stats.to_target=8 stats.to_client=6")
	require.Contains(t, stderr, "listen=unix:"+filepath.Join(dir, "listen"))
	require.NotContains(t, stderr, "not there yet")
	require.NoFileExists(t, filepath.Join(dir, "listen"))
}

// FAILURES 10: a stranger is sent away, and Docker does not notice.
func TestStranger(t *testing.T) {
	dir := servicetest.Dir(t)
	target := listen(t, filepath.Join(dir, "target"))
	stop := program(t, "-listen", "unix:"+filepath.Join(dir, "listen"), "-target", "unix:"+filepath.Join(dir, "target"), "-allow", "uid:4294967294")
	_, err := dial(t, filepath.Join(dir, "listen")).Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)

	next := dial(t, filepath.Join(dir, "target"))
	_, err = io.WriteString(next, "first")
	require.NoError(t, err)
	first := make([]byte, 5)
	_, err = io.ReadFull(accept(t, target), first)
	require.NoError(t, err)
	require.Equal(t, "first", string(first), "the first that came to the target")

	code, stderr := stop()
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stderr, "refused a peer")
	require.Contains(t, stderr, "stats.refused=1")
}

// A connection that finds no target says why, and the next one does better.
func TestNoTarget(t *testing.T) {
	dir := servicetest.Dir(t)
	stop := program(t, "-listen", "unix:"+filepath.Join(dir, "listen"), "-target", "unix:"+filepath.Join(dir, "target"), "-drain", "0")
	_, err := dial(t, filepath.Join(dir, "listen")).Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	target := listen(t, filepath.Join(dir, "target"))
	dial(t, filepath.Join(dir, "listen"))
	accept(t, target)
	code, stderr := stop()
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stderr, "is the server running")
	require.Equal(t, 1, strings.Count(stderr, "the target is not there yet"))
	require.Contains(t, stderr, filepath.Join(dir, "target"))
}

// What fails is said, with exit code 1.
func TestFailureIsSaid(t *testing.T) {
	dir := servicetest.Dir(t)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	var stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), []string{"-listen", "unix:" + file}, &stderr))
	require.Contains(t, stderr.String(), "rdd-guest: ")
	require.Contains(t, stderr.String(), file)
	require.FileExists(t, file)
	require.Equal(t, 1, run(t.Context(), []string{"-listen", "unix:" + filepath.Join(dir, "no", "a.sock")}, &stderr))
	require.Contains(t, stderr.String(), "create the directory "+filepath.Join(dir, "no"))
}
