// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package socketbridge_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestListenUnix: private from the start, gone at the end.
func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	ln := listenUnix(t, path)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o600, info.Mode())
	require.Equal(t, path, ln.Addr().String())
	dialUnix(t, path)
	conn, err := ln.Accept()
	require.NoError(t, err)
	require.IsType(t, &net.UnixConn{}, conn)
	require.NoError(t, conn.Close())
	require.NoError(t, ln.Close())
	require.ErrorIs(t, ln.Close(), net.ErrClosed)
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "neither socket nor lock")

	ln, err = socketbridge.ListenUnix(path, socketbridge.UnixOptions{Mode: 0o666})
	require.NoError(t, err)
	info, err = os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o666, info.Mode())
	require.NoError(t, ln.Close())
}

// TestListenUnixReplacesStaleSocketsOnly. The name in use is told as what it is, as
// FAILURES 30 wants it of ports.
func TestListenUnixReplacesStaleSocketsOnly(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	abandon(t, stale)
	listenUnix(t, stale)
	dialUnix(t, stale)

	live := filepath.Join(dir, "live.sock")
	other, err := new(net.ListenConfig).Listen(t.Context(), "unix", live) // one that knows no lock
	require.NoError(t, err)
	t.Cleanup(func() { _ = other.Close() })
	_, err = socketbridge.ListenUnix(live, socketbridge.UnixOptions{})
	require.ErrorIs(t, err, socketbridge.ErrInUse)
	var taken *socketbridge.InUseError
	require.ErrorAs(t, err, &taken)
	require.Equal(t, "unix", taken.Network)
	require.Equal(t, live, taken.Address)
	require.ErrorIs(t, err, unix.EADDRINUSE)
	require.NotContains(t, err.Error(), "protocol", "what it was found out with")
	require.NoError(t, other.(*net.UnixListener).SetDeadline(past))
	_, err = other.Accept()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the listener that lives is not disturbed")

	packets, err := new(net.ListenConfig).ListenPacket(t.Context(), "unixgram", filepath.Join(dir, "gram.sock"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = packets.Close() })
	_, err = socketbridge.ListenUnix(packets.LocalAddr().String(), socketbridge.UnixOptions{})
	require.ErrorIs(t, err, socketbridge.ErrInUse)

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(stale, link))
	for path, why := range map[string]string{
		file: "is no socket", dir: "is no socket", link: "is no socket",
		"": "is no path", "@abstract": "is no path",
		filepath.Join(dir, "missing", "a.sock"):                "create the directory " + filepath.Join(dir, "missing") + " first: file does not exist",
		filepath.Join(dir, strings.Repeat("x", 120)+".sock"):   "invalid argument",
		filepath.Join(dir, strings.Repeat("x", 300), "a.sock"): "too long",
	} {
		_, err := socketbridge.ListenUnix(path, socketbridge.UnixOptions{})
		require.ErrorContains(t, err, why, path)
		require.NotErrorIs(t, err, socketbridge.ErrInUse)
	}
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "precious", string(content))
	require.NoFileExists(t, file+".lock")
	if runtime.GOOS == "linux" { // which has a directory that not even root may write to
		_, err = socketbridge.ListenUnix("/sys/a.sock", socketbridge.UnixOptions{})
		require.ErrorContains(t, err, "choose a directory that this user may write to")
		require.ErrorIs(t, err, os.ErrPermission)
	}
}

// TestListenUnixLeavesForeignLocks: what ListenUnix cannot have made is neither locked nor
// removed, and the error says which file it is. A lock that a dead process has left is.
func TestListenUnixLeavesForeignLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	lock := path + ".lock"
	for name, create := range map[string]func() error{
		"contents":    func() error { return os.WriteFile(lock, []byte("precious"), 0o600) },
		"a directory": func() error { return os.Mkdir(lock, 0o700) },
		"a pipe":      func() error { return unix.Mkfifo(lock, 0o600) },
		"a link":      func() error { return os.Symlink(os.DevNull, lock) },
		"another user's": func() error {
			if os.Geteuid() != 0 {
				return os.WriteFile(lock, []byte("as good as"), 0o600)
			}
			return errors.Join(os.WriteFile(lock, nil, 0o600), os.Chown(lock, 1, 1))
		},
	} {
		require.NoError(t, create(), name)
		before, err := os.Lstat(lock)
		require.NoError(t, err)
		_, err = socketbridge.ListenUnix(path, socketbridge.UnixOptions{})
		require.ErrorContains(t, err, lock, name)
		require.NotErrorIs(t, err, socketbridge.ErrInUse)
		after, err := os.Lstat(lock)
		require.NoError(t, err, name)
		require.True(t, os.SameFile(before, after), name)
		require.NoFileExists(t, path)
		require.NoError(t, os.Remove(lock))
	}
	require.NoError(t, os.WriteFile(lock, nil, 0o600))
	listenUnix(t, path)
	require.NoFileExists(t, lock)
}

// abandon leaves a socket that nobody listens on.
func abandon(t *testing.T, path string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
}

// TestListenUnixAtOnce: of many that find a stale socket together, one gets it.
func TestListenUnixAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	for range 50 {
		abandon(t, path)
		var won, lost atomic.Int64
		var all sync.WaitGroup
		listeners := make(chan net.Listener, 10)
		for range 10 {
			all.Go(func() {
				ln, err := socketbridge.ListenUnix(path, socketbridge.UnixOptions{})
				switch {
				case err == nil:
					won.Add(1)
					listeners <- ln
				case errors.Is(err, socketbridge.ErrInUse):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, won.Load())
		require.EqualValues(t, 9, lost.Load())
		dialUnix(t, path)
		require.NoError(t, (<-listeners).Close())
		require.NoFileExists(t, path)
	}
}

// TestCloseLeavesTheSuccessorsSocket: what another has put in its place is not removed.
func TestCloseLeavesTheSuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	first := listenUnix(t, path)
	require.NoError(t, os.Remove(path))
	listenUnix(t, path)
	require.NoError(t, first.Close())
	dialUnix(t, path)
}

// TestDialUnix says what to do about a socket that does not answer.
func TestDialUnix(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	abandon(t, stale)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for path, want := range map[string]string{
		"":                           "empty",
		file:                         "it is no socket (-rw-------)",
		dir:                          "it is no socket (d",
		filepath.Join(dir, "a.sock"): "is the server running",
		stale:                        "nobody listens on this socket any more",
	} {
		_, err := socketbridge.DialUnix(path)(t.Context())
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, path)
	}
	_, err := socketbridge.DialUnix(filepath.Join(dir, "a.sock"))(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = socketbridge.DialUnix(stale)(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	listenUnix(t, filepath.Join(dir, "live.sock"))
	_, err = socketbridge.DialUnix(filepath.Join(dir, "live.sock"))(ended)
	require.ErrorIs(t, err, context.Canceled)
}

// TestDialUnixWaitsForTheBacklog, as a blocking connect does, and no longer than its context.
func TestDialUnixWaitsForTheBacklog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "listener")
	t.Cleanup(func() { _ = f.Close() })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	require.NoError(t, unix.Listen(fd, 0))
	ln, err := net.FileListener(f)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	dialUnix(t, path) // takes the only place

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := socketbridge.DialUnix(path)(ctx)
		ended <- err
	}()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)

	go func() {
		conn, err := socketbridge.DialUnix(path)(t.Context())
		if err == nil {
			err = conn.Close()
		}
		ended <- err
	}()
	for range 2 {
		conn, err := ln.Accept()
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	require.NoError(t, <-ended)
}
