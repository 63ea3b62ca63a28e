// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// What one connection might do to hold up all others of its loop.

// ping has a connection echo a byte.
func ping(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetDeadline(time.Now().Add(generous)))
	_, err := conn.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(t, err)
}

// firstTo has the first connection of a Bridge lead to dial, and the others to an echo.
func firstTo(t *testing.T, dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	var calls atomic.Int32
	rest := socketbridge.DialUnix(echo(t))
	return func(ctx context.Context) (net.Conn, error) {
		if calls.Add(1) == 1 {
			return dial(ctx)
		}
		return rest(ctx)
	}
}

// tightListener takes little that is not read.
func tightListener(t *testing.T) net.Listener {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}}
	ln, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// TestLoopOutlivesASocketMadeToBlock by whoever shares it, while it is carried.
func TestLoopOutlivesASocketMadeToBlock(t *testing.T) {
	oneLoop(t)
	ln := tightListener(t)
	shared := make(chan *os.File, 1)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), DrainTimeout: time.Nanosecond,
		Dial: firstTo(t, func(ctx context.Context) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
			if err != nil {
				return nil, err
			}
			f, err := conn.(*net.TCPConn).File()
			shared <- f
			return conn, err
		})}
	at, _ := bridge(t, b)
	stuck := dialUnix(t, at)
	server, err := ln.Accept()
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	_, err = server.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(stuck, make([]byte, 1)) // it is carried
	require.NoError(t, err)
	f := <-shared
	defer func() { _ = f.Close() }()
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) }))
	require.NoError(t, err)
	block(t, stuck)
	other := dialUnix(t, at)
	for range 10 {
		ping(t, other)
	}
	runtime.GC() // waits for every thread that runs Go
}

// TestLoopDoesNotLinger where a socket was set to: to close it would wait for its peer.
func TestLoopDoesNotLinger(t *testing.T) {
	oneLoop(t)
	ln := tightListener(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), DrainTimeout: time.Nanosecond,
		Dial: firstTo(t, func(ctx context.Context) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
			if err != nil {
				return nil, err
			}
			return conn, conn.(*net.TCPConn).SetLinger(3600)
		})}
	at, _ := bridge(t, b)
	client := dialUnix(t, at)
	server, err := ln.Accept()
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	sent, err := client.Write(make([]byte, 32<<10)) // more than the server takes, and less than the kernel
	require.NoError(t, err)
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.ToTarget == int64(sent) })
	require.NoError(t, client.Close())
	other := dialUnix(t, at)
	ping(t, other)
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 1 })
	ping(t, other)
	got, err := io.ReadAll(server) // all the same
	require.NoError(t, err)
	require.Len(t, got, sent)
}

// TestLoopDoesNotWaitForTheLog, although its level changed while a connection was carried.
func TestLoopDoesNotWaitForTheLog(t *testing.T) {
	oneLoop(t)
	log := stuckLog{level: new(slog.LevelVar), release: make(chan struct{})}
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(echo(t)), Logger: slog.New(log)}
	at, stop := bridge(t, b)
	one, other := dialUnix(t, at), dialUnix(t, at)
	ping(t, one)
	ping(t, other)
	log.level.Set(slog.LevelDebug)
	require.NoError(t, one.Close())
	ping(t, other)
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 1 })
	require.NoError(t, other.Close())
	close(log.release)
	stop()
}

// A stuckLog takes a line when it is let go.
type stuckLog struct {
	level   *slog.LevelVar
	release chan struct{}
}

func (l stuckLog) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level.Level() }
func (l stuckLog) Handle(context.Context, slog.Record) error        { <-l.release; return nil }
func (l stuckLog) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l stuckLog) WithGroup(string) slog.Handler                    { return l }

// TestPipeNoticesThatNobodyWillRead: a peer ceases to read when it is sent to already,
// and stays; which is no event to who waits for room.
func TestPipeNoticesThatNobodyWillRead(t *testing.T) {
	t.Cleanup(func() { engine = socketbridge.PipeContext })
	for name, pipe := range map[string]func(context.Context, socketbridge.HalfCloser, socketbridge.HalfCloser) (socketbridge.Stats, error){
		"Pipe": socketbridge.PipeContext, "loop": socketbridge.PipeOnLoop,
	} {
		engine = pipe
		for _, right := range []string{"unix", "tcp"} {
			t.Run(name+" "+right, func(t *testing.T) {
				j := join(t, "unix", right)
				block(t, j.server)
				require.NoError(t, j.client.(*net.UnixConn).CloseRead())
				server := j.server.(net.Conn)
				require.NoError(t, server.SetWriteDeadline(time.Now().Add(generous)))
				_, err := server.Write(make([]byte, 1<<20)) // taken, to be thrown away, or refused
				require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
				require.NoError(t, j.client.CloseWrite())
				_, _ = drained(j.server)
				require.NoError(t, j.server.Close())
				require.ErrorIs(t, j.result(t).err, syscall.EPIPE)
			})
		}
	}
}

// TestBridgeOutlivesADialThatEndsItsGoroutine, as a failing test's helper does.
func TestBridgeOutlivesADialThatEndsItsGoroutine(t *testing.T) {
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), MaxConns: 1,
		Dial: firstTo(t, func(context.Context) (net.Conn, error) { runtime.Goexit(); return nil, nil })}
	at, stop := bridge(t, b)
	first := dialUnix(t, at)
	hear(t, first, "")
	ask(t, dialUnix(t, at), "the next one")
	stop()
	require.Zero(t, b.Stats().Active)
}
