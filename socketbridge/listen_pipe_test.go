// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
)

// What ListenPipe decides, on every system; the pipes themselves are in
// listen_windows_test.go.

func TestPipeNames(t *testing.T) {
	const want = `\\.\pipe\docker_engine`
	for _, name := range []string{want, "docker_engine", `\\.\PIPE\docker_engine`, "//./pipe/docker_engine"} {
		got, err := socketbridge.PipePath(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := socketbridge.PipePath(`ProtectedPrefix\Administrators\x`)
	require.NoError(t, err)
	require.Equal(t, `\\.\pipe\ProtectedPrefix\Administrators\x`, got)

	for name, why := range map[string]string{
		"":                         "names no pipe",
		`\\.\pipe\`:                "names no pipe",
		`\\server\pipe\x`:          "not a pipe of this machine",
		`C:\pipe\x`:                "not a pipe of this machine",
		"npipe:////./pipe/x":       "not a pipe of this machine",
		strings.Repeat("x", 300):   "more than 256",
		`\\.\pipe\\x`:              "not a pipe of this machine",
		`\\.\pip` + "e\\\x00hello": "zero byte",
	} {
		_, err := socketbridge.PipePath(name)
		require.ErrorContains(t, err, why)
		_, err = socketbridge.ListenPipe(name, socketbridge.PipeOptions{})
		require.ErrorContains(t, err, why, "ListenPipe asks first")
	}
}

// TestPipeSecurity: nobody but these three, whatever the parent would pass on, unless
// it is said who else.
func TestPipeSecurity(t *testing.T) {
	me := func() (string, error) { return "S-1-5-21-1-2-3-1001", nil }
	got, err := socketbridge.PipeSecurity("", me)
	require.NoError(t, err)
	require.Equal(t, "D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;S-1-5-21-1-2-3-1001)", got)
	nobody := func() (string, error) { return "", fs.ErrPermission }
	_, err = socketbridge.PipeSecurity("", nobody)
	require.ErrorIs(t, err, fs.ErrPermission)
	got, err = socketbridge.PipeSecurity("D:P(A;;GA;;;SY)", nobody)
	require.NoError(t, err)
	require.Equal(t, "D:P(A;;GA;;;SY)", got)
}

// TestPipeErrors: a name that is taken is told apart, as Windows says it through go-winio.
func TestPipeErrors(t *testing.T) {
	const path = `\\.\pipe\docker_engine`
	wrap := func(errno syscall.Errno) error { return &fs.PathError{Op: "open", Path: path, Err: errno} }
	for errno, taken := range map[syscall.Errno]bool{5: true, 183: true, 231: true, 2: false, 87: false, 123: false, 1337: false} {
		err := socketbridge.PipeError(path, wrap(errno))
		require.Equal(t, taken, errors.Is(err, socketbridge.ErrInUse), "%d", errno)
		require.ErrorIs(t, err, errno)
		require.ErrorContains(t, err, path)
	}
	require.NotErrorIs(t, socketbridge.PipeError(path, net.ErrClosed), socketbridge.ErrInUse)
	var inUse *socketbridge.InUseError
	require.ErrorAs(t, socketbridge.PipeError(path, wrap(5)), &inUse)
	require.Equal(t, "pipe", inUse.Network)
	require.Equal(t, path, inUse.Address)
	require.ErrorContains(t, inUse, "connections that are still open hold the name")
	require.NotErrorIs(t, inUse, os.ErrNotExist)
}

// TestPipeOfNobody: not to be told who this process runs as is no name that is taken,
// whatever the number; the same number of the pipe is.
func TestPipeOfNobody(t *testing.T) {
	denied := syscall.Errno(5)
	nobody := func() (string, error) { return "", denied }
	listen := func(string, string) (net.Listener, error) { return nil, denied }
	_, err := socketbridge.ListenPipeAs(nobody, listen, "x", socketbridge.PipeOptions{})
	require.NotErrorIs(t, err, socketbridge.ErrInUse)
	require.ErrorIs(t, err, denied)
	require.ErrorContains(t, err, `socketbridge: listen on \\.\pipe\x: who this process runs as: `)
	_, err = socketbridge.ListenPipeAs(nobody, listen, "x", socketbridge.PipeOptions{SecurityDescriptor: "D:P(A;;GA;;;SY)"})
	require.ErrorIs(t, err, socketbridge.ErrInUse)
}
