// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package socketbridge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// limit is against hanging only.
const limit = time.Minute

// echo is a server that sends back what it reads, to its end.
func echo(t *testing.T) (path string) {
	t.Helper()
	ln := listenUnix(t, filepath.Join(t.TempDir(), "echo.sock"))
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = conn.Close() }()
				if _, err := io.Copy(conn, conn); err == nil {
					_ = conn.(*net.UnixConn).CloseWrite()
				}
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); conns.Wait() })
	return ln.Addr().String()
}

func listenUnix(t *testing.T, path string) net.Listener {
	t.Helper()
	ln, err := socketbridge.ListenUnix(path, socketbridge.UnixOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func dialUnix(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn, err := socketbridge.DialUnix(path)(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.UnixConn)
}

// ask sends s, ends, and wants it back.
func ask(t *testing.T, conn *net.UnixConn, s string) {
	t.Helper()
	_, err := io.WriteString(conn, s)
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	hear(t, conn, s)
	require.NoError(t, conn.Close())
}

// bridge serves b on a unix socket until stop, which checks how it ended.
func bridge(t *testing.T, b *socketbridge.Bridge) (path string, stop func()) {
	t.Helper()
	ln := listenUnix(t, filepath.Join(t.TempDir(), "bridge.sock"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// TestMaxConns: the next one waits until one has ended. Refused peers
// and failed dials give their place back.
func TestMaxConns(t *testing.T) {
	path, strangers := echo(t), atomic.Int64{}
	strangers.Store(50)
	var dials atomic.Int64
	b := &socketbridge.Bridge{MaxConns: 2,
		Filter: filterFunc(func(net.Conn) error {
			if strangers.Add(-1) >= 0 {
				return errors.New("a stranger")
			}
			return nil
		}),
		Dial: func(ctx context.Context) (net.Conn, error) {
			if dials.Add(1) <= 50 {
				return nil, errors.New("not yet")
			}
			return socketbridge.DialUnix(path)(ctx)
		}}
	at, _ := bridge(t, b)
	for range 100 {
		conn := dialUnix(t, at)
		hear(t, conn, "")
		require.NoError(t, conn.Close())
	}
	first, second := dialUnix(t, at), dialUnix(t, at)
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 2 })
	third := dialUnix(t, at)
	_, err := io.WriteString(third, "x")
	require.NoError(t, err)
	ask(t, first, "first") // the others have been asked before its place is free
	answer := make([]byte, 1)
	_, err = io.ReadFull(third, answer)
	require.NoError(t, err)
	require.LessOrEqual(t, b.Stats().Active, int64(2))
	ask(t, second, "second")
	ask(t, third, "")
	require.Equal(t, int64(53), dials.Load())
}

// TestMaxConnsIsNotExceeded, whatever comes at once.
func TestMaxConnsIsNotExceeded(t *testing.T) {
	const most = 3
	var active, peak atomic.Int64
	path := echo(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), MaxConns: most, Dial: func(ctx context.Context) (net.Conn, error) {
		conn, err := socketbridge.DialUnix(path)(ctx)
		if err == nil {
			n := active.Add(1)
			for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
			}
			conn = &counting{conn.(*net.UnixConn), func() { active.Add(-1) }, sync.Once{}}
		}
		return conn, err
	}}
	at, _ := bridge(t, b)
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() { ask(t, dialUnix(t, at), fmt.Sprint("hello ", i)) })
	}
	clients.Wait()
	require.LessOrEqual(t, peak.Load(), int64(most))
	require.Positive(t, peak.Load())
}

// counting tells of its first Close.
type counting struct {
	*net.UnixConn
	closed func()
	once   sync.Once
}

func (c *counting) Close() error {
	c.once.Do(c.closed)
	return c.UnixConn.Close()
}

// descriptors returns how many are open in this process.
func descriptors(t *testing.T) int {
	t.Helper()
	dir := "/dev/fd"
	if runtime.GOOS == "linux" { // where that is made by whoever boots it
		dir = "/proc/self/fd"
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	return len(entries)
}

// TestTenThousandConnections: FAILURES 26. None is left, neither while the Bridge
// runs nor after it, whichever side ends first and how.
func TestTenThousandConnections(t *testing.T) {
	path := echo(t) // whose listener has the poller open what it needs
	before := descriptors(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path)}
	at, stop := bridge(t, b)
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			for i := range 500 {
				conn, err := socketbridge.DialUnix(at)(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(conn, "hello")
				if i%3 > 0 {
					_ = conn.(*net.UnixConn).CloseWrite()
				}
				if i%3 > 1 {
					_, _ = io.Copy(io.Discard, conn)
				}
				_ = conn.Close() // without an end, without the answer, or in good order
			}
		})
	}
	clients.Wait()
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 0 && s.Accepted == 10_000 })
	stop()
	require.Eventually(t, func() bool { return descriptors(t) == before }, limit, time.Millisecond, "the echo has ended too")
	require.Zero(t, b.Stats().FailedDials)
}

// TestRunAgain: FAILURES 1. A hundred runs of one Bridge leave nothing, and its
// counters go on.
func TestRunAgain(t *testing.T) {
	path, at := echo(t), filepath.Join(t.TempDir(), "bridge.sock")
	opened := make(chan struct{}, 1)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path),
		Listen: func(context.Context) (net.Listener, error) {
			ln, err := socketbridge.ListenUnix(at, socketbridge.UnixOptions{})
			opened <- struct{}{}
			return ln, err
		}}
	before := descriptors(t)
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		<-opened
		ask(t, dialUnix(t, at), "hello")
		cancel()
		require.NoError(t, <-done)
		require.NoFileExists(t, at)
	}
	require.Eventually(t, func() bool { return descriptors(t) == before }, limit, time.Millisecond, "the echo has ended too")
	require.Equal(t, socketbridge.BridgeStats{Accepted: 100, ToTarget: 500, ToClient: 500}, b.Stats())
}

// TestServeTwiceAtATime: two listeners, one Bridge; the end of one run is not that of the other.
func TestServeTwiceAtATime(t *testing.T) {
	path := echo(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path), MaxConns: 1}
	one, stop := bridge(t, b)
	two, _ := bridge(t, b)
	ask(t, dialUnix(t, one), "one")
	ask(t, dialUnix(t, two), "two")
	stop()
	ask(t, dialUnix(t, two), "two")
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 0 })
	require.Equal(t, socketbridge.BridgeStats{Accepted: 3, ToTarget: 9, ToClient: 9}, b.Stats())
}

// TestStopInTheMidst of many clients: nothing is left, and all of them see an end.
func TestStopInTheMidst(t *testing.T) {
	path := echo(t)
	for range 10 {
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path), DrainTimeout: time.Millisecond}
		at, stop := bridge(t, b)
		started := make(chan struct{}, 40)
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() {
				for {
					conn, err := socketbridge.DialUnix(at)(t.Context())
					if err != nil {
						return // the listener is gone
					}
					select {
					case started <- struct{}{}:
					default:
					}
					_, _ = io.WriteString(conn, strings.Repeat("x", 10_000))
					_, _ = io.ReadFull(conn, make([]byte, 10_000))
					_ = conn.Close()
				}
			})
		}
		for range 40 {
			<-started
		}
		stop()
		clients.Wait()
		require.Zero(t, b.Stats().Active)
	}
}

// TestServeOfAClosedListener, and of one context that has ended.
func TestServeOfAClosedListener(t *testing.T) {
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix("x")}
	ln := listenUnix(t, filepath.Join(t.TempDir(), "a.sock"))
	require.NoError(t, ln.Close())
	require.ErrorIs(t, b.Serve(t.Context(), ln), net.ErrClosed)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ln = listenUnix(t, filepath.Join(t.TempDir(), "b.sock"))
	require.NoError(t, b.Serve(ctx, ln))
	_, err := ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// TestAllowUID asks the kernel, which no peer can deceive.
func TestAllowUID(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		return // told as errors.ErrUnsupported
	}
	ln := listenUnix(t, filepath.Join(t.TempDir(), "a.sock"))
	client := dialUnix(t, ln.Addr().String())
	server, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	me := uint32(os.Getuid())
	require.NoError(t, socketbridge.AllowUID(me+1, me).Allow(server))
	require.NoError(t, socketbridge.AllowUID(me).Allow(client), "the server's")
	require.NoError(t, socketbridge.AllowUID(me).Allow(&counting{UnixConn: server.(*net.UnixConn)}), "a wrapper shows its descriptor")
	require.ErrorContains(t, socketbridge.AllowUID(me+1).Allow(server), fmt.Sprintf("its UID is %d", me))
	require.ErrorContains(t, socketbridge.AllowUID().Allow(server), "allowed is []")
	require.ErrorContains(t, socketbridge.AllowUID(me).Allow(oneWay{server}), "no descriptor")
	require.NoError(t, server.Close())
	require.ErrorIs(t, socketbridge.AllowUID(me).Allow(server), net.ErrClosed)

	tcp, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = tcp.Close() })
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", tcp.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.ErrorContains(t, socketbridge.AllowUID(me, 0).Allow(conn), "no unix socket")
	if runtime.GOOS == "linux" {
		// A forged address does not help when the kernel can be asked.
		forged := &forgery{conn.(*net.TCPConn)}
		require.ErrorContains(t, socketbridge.AllowCID(2).Allow(forged), "not as vsock")
	}
}

// forgery is a connection that claims to come from the host.
type forgery struct{ *net.TCPConn }

func (*forgery) RemoteAddr() net.Addr { return cid(2) }
