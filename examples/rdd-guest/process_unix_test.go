// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
)

// A child is the program as a service manager runs it.
type child struct {
	*exec.Cmd
	told   func() string // the next that it tells its manager
	stderr *bytes.Buffer // once it has ended
}

// newChild starts the program. It inherits file as descriptor 3, and what systemd
// sets in the environment for such.
func newChild(t *testing.T, dir string, file *os.File, args ...string) child {
	t.Helper()
	c := child{told: servicetest.Manager(t, dir), stderr: &bytes.Buffer{}}
	self, err := os.Executable()
	require.NoError(t, err)

	c.Cmd = exec.CommandContext(t.Context(), "sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, self}, args...)...)
	c.Env = []string{"RDD_GUEST=run", "NOTIFY_SOCKET=" + os.Getenv("NOTIFY_SOCKET"), "GORACE=atexit_sleep_ms=0"}
	if file != nil {
		c.Env = append(c.Env, "LISTEN_FDS=1")
		c.ExtraFiles = []*os.File{file}
	}
	c.Stderr = c.stderr
	require.NoError(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c
}

// FAILURES 12: on SIGTERM connections go on until they end. The manager knows.
func TestSIGTERM(t *testing.T) {
	dir := servicetest.Dir(t)
	path := filepath.Join(dir, "listen")
	target := listen(t, filepath.Join(dir, "target"))
	c := newChild(t, dir, nil, "-listen", "unix:"+path, "-target", "unix:"+filepath.Join(dir, "target"), "-drain", "1h")
	require.Equal(t, "READY=1\nSTATUS=bridging to unix:"+filepath.Join(dir, "target"), c.told())
	client := dial(t, path)
	server := accept(t, target)

	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.Equal(t, "STOPPING=1\nSTATUS=waiting for 1 connections to end", c.told())
	require.Eventually(t, func() bool {
		_, err := os.Stat(path)
		return os.IsNotExist(err)
	}, time.Minute, 10*time.Millisecond, "nobody connects any more")
	_, err := io.WriteString(client, "still there")
	require.NoError(t, err)
	require.NoError(t, client.CloseWrite())
	got, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "still there", string(got))
	require.NoError(t, server.Close())
	require.NoError(t, c.Wait())
	require.Contains(t, c.stderr.String(), `msg=stopping active=1 drain=1h0m0s hint="again to end at once"`)
	require.Contains(t, c.stderr.String(), "msg=ended")
}

func TestSecondSIGTERM(t *testing.T) {
	dir := servicetest.Dir(t)
	path := filepath.Join(dir, "listen")
	target := listen(t, filepath.Join(dir, "target"))
	c := newChild(t, dir, nil, "-listen", "unix:"+path, "-target", "unix:"+filepath.Join(dir, "target"), "-drain", "-1s")
	c.told()
	dial(t, path)
	server := accept(t, target)
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.Contains(t, c.told(), "STOPPING=1")
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	require.Eventually(t, func() bool {
		_ = c.Process.Signal(syscall.SIGTERM) // the first of these may be too soon
		return len(ended) > 0
	}, time.Minute, 50*time.Millisecond)
	require.Error(t, <-ended)
	_, err := server.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, 1, c.ProcessState.ExitCode())
	require.Contains(t, c.stderr.String(), `drain="until they end"`)
	require.Contains(t, c.stderr.String(), "told to end a second time: connections are cut")
}

// The socket may be the service manager's. What that listens on is there before
// the program is, and after it.
func TestInheritedSocket(t *testing.T) {
	for name, args := range map[string][]string{"activation": nil, "by number": {"-listen", "fd:3"}} {
		t.Run(name, func(t *testing.T) {
			dir := servicetest.Dir(t)
			path := filepath.Join(dir, "listen")
			ln := listen(t, path).(*net.UnixListener)
			file, err := ln.File()
			require.NoError(t, err)
			defer file.Close() //nolint:errcheck // the end
			client := dial(t, path)
			target := listen(t, filepath.Join(dir, "target"))

			c := newChild(t, dir, file, append(args, "-target", "unix:"+filepath.Join(dir, "target"))...)
			require.Contains(t, c.told(), "READY=1")
			server := accept(t, target)
			require.NoError(t, client.CloseWrite())
			_, err = server.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			require.NoError(t, server.Close())
			require.NoError(t, c.Process.Signal(syscall.SIGTERM))
			require.NoError(t, c.Wait(), c.stderr)
			require.FileExists(t, path)
			dial(t, path)
		})
	}
}

// An inherited TCP socket has no default for who may connect.
func TestInheritedTCP(t *testing.T) {
	dir := servicetest.Dir(t)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close() //nolint:errcheck // the end
	file, err := ln.(*net.TCPListener).File()
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // the end
	c := newChild(t, dir, file)
	require.Error(t, c.Wait())
	require.Equal(t, 1, c.ProcessState.ExitCode())
	require.Contains(t, c.stderr.String(), "-allow is missing")
}

// What is not there to be inherited is an error.
func TestInheritedNothing(t *testing.T) {
	c := newChild(t, servicetest.Dir(t), nil, "-listen", "fd:99")
	require.Error(t, c.Wait())
	require.Equal(t, 2, c.ProcessState.ExitCode())
	require.Contains(t, c.stderr.String(), "fd 99 is no socket")
}
