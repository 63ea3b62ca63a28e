// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
)

// Connections in memory, for tests with a clock of their own (synctest).

// A memConn is two halves of net.Pipe, so that one can end before the other.
type memConn struct {
	r, w   net.Conn
	remote net.Addr
}

// memPair returns the two ends of a connection. Both say that their peer is remote.
func memPair(remote net.Addr) (client, server memConn) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	return memConn{r1, w2, remote}, memConn{r2, w1, remote}
}

func (c memConn) Read(b []byte) (int, error)         { return c.r.Read(b) }
func (c memConn) Write(b []byte) (int, error)        { return c.w.Write(b) }
func (c memConn) CloseWrite() error                  { return c.w.Close() }
func (c memConn) Close() error                       { return errors.Join(c.r.Close(), c.w.Close()) }
func (c memConn) LocalAddr() net.Addr                { return c.remote }
func (c memConn) RemoteAddr() net.Addr               { return c.remote }
func (c memConn) SetReadDeadline(t time.Time) error  { return c.r.SetReadDeadline(t) }
func (c memConn) SetWriteDeadline(t time.Time) error { return c.w.SetWriteDeadline(t) }
func (c memConn) SetDeadline(t time.Time) error {
	return errors.Join(c.r.SetReadDeadline(t), c.w.SetWriteDeadline(t))
}

// oneWay is a connection without CloseWrite.
type oneWay struct{ net.Conn }

// memListener accepts what is put into it: connections and errors.
type memListener struct {
	next   chan any
	closed chan struct{}
	once   sync.Once
}

func newMemListener() *memListener {
	return &memListener{next: make(chan any, 2000), closed: make(chan struct{})}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "mem", Err: net.ErrClosed}
	case next := <-l.next:
		if err, ok := next.(error); ok {
			return nil, err
		}
		return next.(net.Conn), nil
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memListener) Addr() net.Addr { return text{"mem", "listener"} }

// connect has the listener accept a connection from a peer.
func (l *memListener) connect(remote net.Addr) memConn {
	client, server := memPair(remote)
	l.next <- server
	return client
}

// memTarget is dialled, and hands out the other ends.
type memTarget chan memConn

func (t memTarget) Dial(context.Context) (net.Conn, error) {
	here, there := memPair(text{"mem", "target"})
	t <- there
	return here, nil
}

// running is a Bridge that serves.
type running struct {
	ln   *memListener
	stop context.CancelFunc
	done chan error
}

// serve runs b until the test ends, and requires that Serve then returns nil.
func serve(t *testing.T, b *socketbridge.Bridge) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &running{newMemListener(), stop, make(chan error, 1)}
	go func() { r.done <- b.Serve(ctx, r.ln) }()
	t.Cleanup(func() {
		stop()
		if err, ok := <-r.done; ok {
			require.NoError(t, err)
		}
		<-r.ln.closed
	})
	return r
}

// ended returns what Serve returned.
func (r *running) ended() error {
	defer close(r.done)
	return <-r.done
}

// say writes and ends writing.
func say(t *testing.T, c memConn, s string) {
	t.Helper()
	_, err := io.WriteString(c, s)
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
}

func hear(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// journal is a slog.Handler that keeps what it is told.
type journal struct {
	mu      sync.Mutex
	records []slog.Record
}

func (*journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler     { return j }
func (j *journal) WithGroup(string) slog.Handler          { return j }
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, r)
	return nil
}

// atLeast returns the lines of a level or a higher one.
func (j *journal) atLeast(level slog.Level) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var lines []string
	for r := range slices.Values(j.records) {
		if r.Level >= level {
			line := r.Message
			r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
			lines = append(lines, line)
		}
	}
	return lines
}
