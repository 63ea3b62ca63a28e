// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
)

// A vm is a folder with the sockets of its ports.
type vm struct {
	t *testing.T
	discovery.Peer
	dir string
}

func newVM(t *testing.T) vm {
	t.Helper()
	dir := servicetest.Dir(t)
	peers, err := discovery.Unix(dir).Peers(t.Context())
	require.NoError(t, err)
	return vm{t, peers[0], dir}
}

func (v vm) listen(port uint32) net.Listener {
	v.t.Helper()
	ln, err := v.Listen(port)
	require.NoError(v.t, err)
	v.t.Cleanup(func() { _ = ln.Close() })
	return ln
}

type anyone struct{}

func (anyone) Allow(net.Conn) error { return nil }

// waits has the VM wait for its network, until stop.
func (v vm) waits() (stop func()) {
	ln := v.listen(discovery.RancherDesktop.HandshakePort)
	ctx, cancel := context.WithCancel(v.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := discovery.Responder{Protocol: discovery.RancherDesktop, Filter: anyone{}}
		_ = r.WaitReady(ctx, ln)
	}()
	stop = func() { cancel(); <-done }
	v.t.Cleanup(stop)
	return stop
}

// echo has a connection answer itself, as whatever listens does.
func echo(t *testing.T, ln net.Listener, dial func() (net.Conn, error)) {
	t.Helper()
	var client net.Conn
	require.Eventually(t, func() (ok bool) {
		var err error
		client, err = dial()
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	defer client.Close() //nolint:errcheck // the end
	require.NoError(t, ln.(*net.UnixListener).SetDeadline(time.Now().Add(time.Minute)))
	server, err := ln.Accept()
	require.NoError(t, err)
	defer server.Close() //nolint:errcheck // the end
	for _, c := range []net.Conn{client, server} {
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	}
	_, err = io.WriteString(client, "hello")
	require.NoError(t, err)
	require.NoError(t, client.(interface{ CloseWrite() error }).CloseWrite())
	got, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
}

// The program leads to the guest that it is told, or finds, and ends well.
func TestRun(t *testing.T) {
	for known, arg := range map[string]string{"": "-guest", "found among ": "-discover"} {
		t.Run(arg, func(t *testing.T) {
			guest := newVM(t)
			if arg == "-discover" {
				guest.waits()
			}
			socket := filepath.Join(guest.dir, "docker.sock")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var stderr bytes.Buffer
			code := make(chan int, 1)
			go func() { code <- run(ctx, []string{"-listen", "unix:" + socket, arg, "unix:" + guest.dir}, &stderr) }()
			echo(t, guest.listen(6660), func() (net.Conn, error) {
				return new(net.Dialer).DialContext(t.Context(), "unix", socket)
			})
			cancel()
			require.Equal(t, 0, <-code, &stderr)
			require.Contains(t, stderr.String(), "waiting for clients; guest is "+known+"unix:"+guest.dir)
			require.NoFileExists(t, socket)
		})
	}
}

// Told to end while it looks for the VM, it ends well.
func TestNothingFound(t *testing.T) {
	guest := newVM(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	require.Equal(t, 0, run(ctx, []string{"-listen", "unix:" + filepath.Join(guest.dir, "s"), "-discover", "unix:" + guest.dir}, &stderr), &stderr)
	require.Regexp(t, `msg="waiting for the VM" discover=unix:[^ ]*\n$`, stderr.String())
	stderr.Reset()
	require.Equal(t, 0, run(ctx, []string{"-listen", "unix:" + filepath.Join(guest.dir, "s"), "-discover", "unix:/nope"}, &stderr), &stderr)
	require.Contains(t, stderr.String(), "reason=")
}

// A guest that cannot be there, or is not yet, is said at the start.
func TestNoGuest(t *testing.T) {
	dir := servicetest.Dir(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	listen := "unix:" + filepath.Join(dir, "s")
	var stderr bytes.Buffer
	require.Equal(t, 0, run(ctx, []string{"-listen", listen, "-guest", "unix:" + dir}, &stderr), &stderr)
	require.Contains(t, stderr.String(), `msg="the guest is not there yet: connections fail until it is" guest=unix:`+dir)
	require.Contains(t, stderr.String(), filepath.Join(dir, "6660.sock"))
	if runtime.GOOS == "linux" {
		require.Equal(t, 2, run(ctx, []string{"-listen", listen, "-guest", "vsock:2"}, &stderr))
		require.Contains(t, stderr.String(), "CID 2 is not that of a guest")
	}
}

// When the VM that was found does not answer, another one may have come in its
// place. As long as none has, it is still the one.
func TestFinder(t *testing.T) {
	first, second := newVM(t), newVM(t)
	f := newFinder(&discovery.Discoverer{
		Source: discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			return []discovery.Peer{first.Peer, second.Peer}, nil
		}),
		Protocol: discovery.RancherDesktop,
		Interval: 10 * time.Millisecond,
		Logger:   slog.New(slog.DiscardHandler),
	}, 6660)
	stop := first.waits()
	require.NoError(t, f.find(t.Context()))
	stop()

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := f.dial(ctx)
	require.ErrorIs(t, err, os.ErrNotExist, "rdd-guest does not run there, and no other VM is found")

	ln := first.listen(6660)
	echo(t, ln, func() (net.Conn, error) { return f.dial(t.Context()) })
	require.NoError(t, ln.Close())

	second.waits()
	echo(t, second.listen(6660), func() (net.Conn, error) { return f.dial(t.Context()) })
}
