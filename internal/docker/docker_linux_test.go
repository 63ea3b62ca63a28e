// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/rancher-sandbox/guestnet/internal/house/process"
)

// TestDocker is what people do with Docker, through the bridge, with one daemon.
// FAILURES 26: whatever they do, it leaves no descriptor in either program.
func TestDocker(t *testing.T) {
	l := newLab(t)
	for name, test := range map[string]func(t *testing.T, b *bridge){
		"exec with stdin, 100 times":    testExec,
		"50 at once":                    testParallel,
		"attach, stdin closed early":    testAttach,
		"logs that end by themselves":   testLogs,
		"events until nobody listens":   testEvents,
		"copying 100 MB in and out":     testCopy,
		"a client that is killed":       testKilledClient,
		"a daemon that is down a while": func(t *testing.T, b *bridge) { testRestart(t, l, b) },
	} {
		t.Run(name, func(t *testing.T) {
			b := l.bridge(t)
			const loops = 2 * 4 // of a Bridge that has carried something, until it ends
			guest, host := b.guest.Descriptors(), b.host.Descriptors()
			test(t, b)
			require.Eventually(t, func() bool {
				return b.guest.Descriptors() <= guest+loops && b.host.Descriptors() <= host+loops
			}, patience, tick, "descriptors are left over")
			b.host.Stop()
			b.guest.Stop()
			for _, p := range []*process.Process{b.host, b.guest} {
				require.Contains(t, p.Log.String(), "stats.active=0")
				require.NotContains(t, p.Log.String(), "stats.accepted=0")
			}
		})
	}
}

// FAILURES 27: the end of stdin reaches the program in the container, and what it
// prints then, and after that, comes back. FAILURES 25 likewise.
func testExec(t *testing.T, b *bridge) {
	box := b.box()
	for i := range 100 {
		out, err := b.try(strings.NewReader("hi\n"), "exec", "-i", box, "cat")
		require.NoError(t, err, "number %d", i)
		require.Equal(t, "hi\n", out, "number %d", i)
	}
	out, err := b.try(strings.NewReader("hi\n"), "exec", "-i", box, "sh", "-c", "cat; sleep 1; echo late; exit 3")
	require.ErrorContains(t, err, "exit status 3")
	require.Equal(t, "hi\nlate\n", out)
}

func testParallel(t *testing.T, b *bridge) {
	box := b.box()
	var g errgroup.Group
	for i := range 50 {
		g.Go(func() error {
			text := strings.Repeat(fmt.Sprintln("this is", i), 1000)
			out, err := b.try(strings.NewReader(text), "exec", "-i", box, "cat")
			if err == nil && out != text {
				err = fmt.Errorf("number %d got %d bytes, not the %d of its own", i, len(out), len(text))
			}
			return err
		})
	}
	require.NoError(t, g.Wait())
}

func testAttach(t *testing.T, b *bridge) {
	const name = "attached"
	b.run("create", "-i", "--name", name, "--network=none", image, "sh", "-c", "cat; echo first; sleep 1; echo last; exit 7")
	b.run("start", name)
	out, err := b.try(strings.NewReader(""), "attach", name)
	require.ErrorContains(t, err, "exit status 7")
	require.Equal(t, "first\nlast\n", out)
	b.run("rm", name)
}

// untilTold prints a line, and another one when /go is there.
var untilTold = []string{"sh", "-c", "echo one; while [ ! -e /go ]; do sleep 0.1; done; echo two"}

func testLogs(t *testing.T, b *bridge) {
	name := b.container(untilTold...)
	logs := b.start("logs", "-f", name)
	logs.WaitLog("one\n")
	b.run("exec", name, "touch", "/go")
	require.NoError(t, logs.Wait())
	require.Equal(t, "one\ntwo\n", logs.Log.String())
}

func testEvents(t *testing.T, b *bridge) {
	events := b.start("events", "--since=0", "--filter=event=die", "--filter=container=eventful")
	for i := range 3 {
		_, _ = b.try(nil, "run", "--rm", "--name=eventful", "--network=none", image, "sh", "-c", fmt.Sprint("exit ", i))
		events.WaitLog(fmt.Sprintf("exitCode=%d", i))
	}
	events.Signal(syscall.SIGTERM)
	_ = events.Wait()
}

func testCopy(t *testing.T, b *bridge) {
	box, dir := b.box(), t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	f, err := os.Create(in)
	require.NoError(t, err)
	hash := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, hash), rand.NewChaCha8([32]byte{}), 100<<20)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	want := hex.EncodeToString(hash.Sum(nil))

	b.run("cp", in, box+":/copy")
	require.Equal(t, want, strings.Fields(b.run("exec", box, "sha256sum", "/copy"))[0])
	b.run("cp", box+":/copy", out)
	f, err = os.Open(out)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // it was read
	hash.Reset()
	_, err = io.Copy(hash, f)
	require.NoError(t, err)
	require.Equal(t, want, hex.EncodeToString(hash.Sum(nil)))
}

// A client that is gone from one moment to the next is gone for Docker, too: the
// connection does not stay, though nothing is written to it.
func testKilledClient(t *testing.T, b *bridge) {
	name := b.container(untilTold...)
	logs := b.start("logs", "-f", name)
	logs.WaitLog("one\n")
	logs.Signal(syscall.SIGKILL)
	require.Error(t, logs.Wait())
}

func testRestart(t *testing.T, l *lab, b *bridge) {
	box := b.box()
	logs := b.start("logs", "-f", box)
	l.daemon.Stop()
	_ = logs.Wait()

	_, err := b.try(nil, "ps")
	require.Error(t, err, "there is no daemon")
	b.guest.WaitLog("no connection to the target")
	require.Contains(t, b.guest.Log.String(), l.daemon.socket)
	require.Contains(t, b.guest.Log.String(), "is the server running")

	l.daemon.start()
	b.run("start", box)
	out, err := b.try(strings.NewReader("hi\n"), "exec", "-i", box, "cat")
	require.NoError(t, err)
	require.Equal(t, "hi\n", out)
}
