// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// TestMain is also the program itself, for tests that need it as a process.
func TestMain(m *testing.M) {
	if os.Getenv("RDD_GUEST") == "run" {
		main()
	}
	goleak.VerifyTestMain(m)
}

func TestWrongCommandLines(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown flag":        {[]string{"-nonsense"}, "-nonsense"},
		"argument":            {[]string{"more"}, `"more" is no flag`},
		"listen: nonsense":    {[]string{"-listen", "6660"}, "vsock:PORT, unix:PATH, tcp:ADDRESS:PORT or fd:NUMBER"},
		"listen: no port":     {[]string{"-listen", "vsock:"}, "vsock:6660"},
		"listen: a CID":       {[]string{"-listen", "vsock:2:6660"}, "vsock:6660"},
		"listen: large port":  {[]string{"-listen", "vsock:4294967296"}, "vsock:6660"},
		"listen: no path":     {[]string{"-listen", "unix:"}, "write a path"},
		"listen: tcp port":    {[]string{"-listen", "tcp:2375"}, "tcp:127.0.0.1:2375"},
		"listen: tcp address": {[]string{"-listen", "tcp::2375"}, "tcp:127.0.0.1:2375"},
		"listen: tcp, whom":   {[]string{"-listen", "tcp:127.0.0.1:2375"}, "-allow is missing"},
		"listen: fd":          {[]string{"-listen", "fd:three"}, "fd:3"},
		"target: nonsense":    {[]string{"-target", "/var/run/docker.sock"}, "unix:/var/run/docker.sock"},
		"target: no path":     {[]string{"-target", "unix:"}, "write unix:PATH"},
		"target: no port":     {[]string{"-target", "tcp:127.0.0.1"}, "tcp:ADDRESS:PORT"},
		"allow: nonsense":     {[]string{"-allow", "me"}, "cid:NUMBER, uid:NUMBER"},
		"allow: no number":    {[]string{"-allow", "cid:host"}, "cid:NUMBER"},
		"allow: address":      {[]string{"-allow", "127.0.0.1"}, "127.0.0.1/32"},
		"drain":               {[]string{"-drain", "10"}, "-drain"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), c.args, &stderr))
			require.Contains(t, stderr.String(), "rdd-guest: ")
			require.Contains(t, stderr.String(), c.says)
			require.Equal(t, 1, bytes.Count(stderr.Bytes(), []byte("\n")), "one line: %s", &stderr)
		})
	}
}

func TestHelp(t *testing.T) {
	var stderr bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-help"}, &stderr))
	for _, flag := range []string{"-listen", "-target", "-allow", "-drain", "-idle", "-max-conns", "-v"} {
		require.Contains(t, stderr.String(), "\n  "+flag)
	}
}

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// FAILURES 10: unless somebody is named, the host is let in and nobody else.
func TestWhoMayConnect(t *testing.T) {
	cid := func(n uint32) net.Addr { return &vsock.Addr{ContextID: n, Port: 1000} }
	tcp := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	for name, c := range map[string]struct {
		args []string
		from net.Addr
		may  bool
	}{
		"the host":                   {nil, cid(2), true},
		"the host, port named":       {[]string{"-listen", "vsock:1"}, cid(2), true},
		"this guest":                 {[]string{"-listen", "vsock:1"}, cid(1), false},
		"another CID":                {[]string{"-listen", "vsock:1"}, cid(3), false},
		"TCP":                        {[]string{"-listen", "vsock:1"}, tcp, false},
		"a CID that is named":        {[]string{"-allow", "cid:3"}, cid(3), true},
		"the host, when another is":  {[]string{"-allow", "cid:3"}, cid(2), false},
		"two are named, the first":   {[]string{"-allow", "cid:3", "-allow", "127.0.0.0/8"}, cid(3), true},
		"two are named, the other":   {[]string{"-allow", "cid:3", "-allow", "127.0.0.0/8"}, tcp, true},
		"two are named, not a third": {[]string{"-allow", "cid:3", "-allow", "127.0.0.0/8"}, cid(2), false},
		"anybody":                    {[]string{"-allow", "any"}, cid(4), true},
		"unix is not asked for CIDs": {[]string{"-listen", "unix:/s"}, cid(2), false},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(c.args, io.Discard)
			require.NoError(t, err)
			f := o.bridge.Filter
			if f == nil { // the listener is known only when it is open
				f, err = defaultFilter("vsock")
				require.NoError(t, err)
			}
			require.Equal(t, c.may, f.Allow(from{addr: c.from}) == nil)
		})
	}
	_, err := defaultFilter("tcp")
	require.ErrorContains(t, err, "say who may connect")
}

// folder returns one for sockets: their paths have to be short.
func folder(t *testing.T) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no unix sockets that a Bridge listens on: run this on Linux or macOS")
	}
	dir, err := os.MkdirTemp("", "g") //nolint:usetesting // TempDir's are too long
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

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
	dir := folder(t)
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
	require.NoFileExists(t, filepath.Join(dir, "listen"))
}

// FAILURES 10: a stranger is sent away, and Docker does not notice.
func TestStranger(t *testing.T) {
	dir := folder(t)
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
	dir := folder(t)
	stop := program(t, "-listen", "unix:"+filepath.Join(dir, "listen"), "-target", "unix:"+filepath.Join(dir, "target"), "-drain", "0")
	_, err := dial(t, filepath.Join(dir, "listen")).Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	target := listen(t, filepath.Join(dir, "target"))
	dial(t, filepath.Join(dir, "listen"))
	accept(t, target)
	code, stderr := stop()
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stderr, "is the server running")
	require.Contains(t, stderr, filepath.Join(dir, "target"))
}

// What fails is said, with exit code 1.
func TestFailureIsSaid(t *testing.T) {
	dir := folder(t)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	var stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), []string{"-listen", "unix:" + file}, &stderr))
	require.Contains(t, stderr.String(), "rdd-guest: ")
	require.Contains(t, stderr.String(), file)
	require.FileExists(t, file)
}
