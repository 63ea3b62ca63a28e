// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// A door is a listener in memory.
type door struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	closes atomic.Int32
}

func newDoor() *door {
	return &door{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.conns:
		return conn, nil
	case err := <-d.errs:
		return nil, err
	case <-d.closed:
		return nil, &net.OpError{Op: "accept", Net: "door", Err: net.ErrClosed}
	}
}

func (d *door) Close() error {
	if d.closes.Add(1) == 1 {
		close(d.closed)
	}
	return nil
}

func (*door) Addr() net.Addr { return &net.UnixAddr{Name: "door"} }

// connect is a host that dials; nil when nobody listens any more.
func (d *door) connect() net.Conn {
	host, guest := net.Pipe()
	select {
	case d.conns <- guest:
		return host
	case <-d.closed:
		return nil
	}
}

type filter func(net.Conn) error

func (f filter) Allow(c net.Conn) error { return f(c) }

var anyone = filter(func(net.Conn) error { return nil })

// A wait is a Responder that waits.
type wait struct {
	*door
	cancel context.CancelFunc
	result chan error
}

// waiting runs WaitReady in a bubble; run's host connects to it.
func waiting(t *testing.T, r *discovery.Responder, run func(t *testing.T, w *wait)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &wait{newDoor(), cancel, make(chan error, 1)}
		r.Protocol = protocol
		if r.Filter == nil {
			r.Filter = anyone
		}
		go func() { w.result <- r.WaitReady(ctx, w.door) }()
		run(t, w)
		<-w.closed
	})
}

// shake is one handshake by a host; it returns what the guest answered.
func (w *wait) shake(t *testing.T, says string) string {
	t.Helper()
	conn := w.connect()
	require.NotNil(t, conn)
	defer shut(conn)
	buf := make([]byte, len(signature))
	_, err := io.ReadFull(conn, buf)
	require.NoError(t, err)
	_, _ = io.WriteString(conn, says)
	return string(buf)
}

func TestWaitReady(t *testing.T) {
	waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
		require.Equal(t, signature, w.shake(t, "READY"))
		require.NoError(t, <-w.result)
		require.Nil(t, w.connect(), "it still listens")
	})
}

// TestWaitReadyGoesOn: after everything that is not READY.
func TestWaitReadyGoesOn(t *testing.T) {
	for name, turn := range map[string]func(conn net.Conn){
		"EOF at once":              func(net.Conn) {},
		"EOF after the signature":  func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 60) },
		"half READY":               func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 60); _, _ = io.WriteString(c, "REA") },
		"something else":           func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 60); _, _ = io.WriteString(c, "HELLO") },
		"ready, but not like that": func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 60); _, _ = io.WriteString(c, "ready") },
		"a long text": func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, c, 60)
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
		},
		"never reads":  func(c net.Conn) { <-time.After(time.Minute) },
		"says nothing": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"a byte every four seconds": func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, c, 60)
			for _, b := range []byte("READY") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				<-time.After(4 * time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
				conn := w.connect()
				turn(conn)
				_ = conn.Close()
				synctest.Wait()
				require.Empty(t, w.result)
				require.Equal(t, signature, w.shake(t, "READY"))
				require.NoError(t, <-w.result)
			})
		})
	}
}

// TestReadyInPieces: a stream has no messages.
func TestReadyInPieces(t *testing.T) {
	waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
		conn := w.connect()
		defer shut(conn)
		_, err := io.ReadFull(conn, make([]byte, len(signature)))
		require.NoError(t, err)
		for _, b := range []byte("READY") {
			_, err := conn.Write([]byte{b})
			require.NoError(t, err)
			pass(time.Second - time.Millisecond)
		}
		require.NoError(t, <-w.result)
	})
}

// TestPeersAreServedSideBySide: FAILURES 6. One that is silent delays no other,
// and is closed when another is READY.
func TestPeersAreServedSideBySide(t *testing.T) {
	waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
		start := time.Now()
		lazy := w.connect()
		defer shut(lazy)
		require.Equal(t, signature, w.shake(t, "READY"))
		require.NoError(t, <-w.result)
		require.Zero(t, time.Since(start))
		_, err := lazy.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "left open")
	})
}

// A turnConn is counted from when the guest writes to when it closes.
type turnConn struct {
	net.Conn
	open, most *atomic.Int32
	once       sync.Once
}

func (c *turnConn) Write(b []byte) (int, error) {
	c.most.Store(max(c.most.Load(), c.open.Add(1)))
	return c.Conn.Write(b)
}

func (c *turnConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// TestManySilentPeers: at most 32 have a turn at a time, and READY gets its own.
func TestManySilentPeers(t *testing.T) {
	waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
		var open, most atomic.Int32
		start := time.Now()
		for range 100 {
			go func() {
				host, guest := net.Pipe()
				w.conns <- &turnConn{Conn: guest, open: &open, most: &most}
				silent(host)
			}()
		}
		synctest.Wait()
		require.EqualValues(t, 32, open.Load())
		require.Equal(t, signature, w.shake(t, "READY"))
		require.NoError(t, <-w.result)
		require.EqualValues(t, 32, most.Load())
		require.LessOrEqual(t, time.Since(start), 20*time.Second)
		require.Zero(t, open.Load())
		synctest.Wait()
	})
}

func TestResponderTimeout(t *testing.T) {
	for name, tc := range map[string]struct{ timeout, want time.Duration }{
		"default": {0, 5 * time.Second}, "shorter": {time.Second, time.Second}, "longer": {time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			waiting(t, &discovery.Responder{Timeout: tc.timeout}, func(t *testing.T, w *wait) {
				start := time.Now()
				conn := w.connect()
				defer shut(conn)
				_, _ = io.Copy(io.Discard, conn)
				require.Equal(t, tc.want, time.Since(start))
				w.cancel()
				require.ErrorIs(t, <-w.result, context.Canceled)
			})
		})
	}
}

// TestResponderWithoutTimeout: a negative one is none.
func TestResponderWithoutTimeout(t *testing.T) {
	waiting(t, &discovery.Responder{Timeout: -1}, func(t *testing.T, w *wait) {
		conn := w.connect()
		defer shut(conn)
		_, err := io.ReadFull(conn, make([]byte, len(signature)))
		require.NoError(t, err)
		pass(24 * time.Hour)
		_, err = io.WriteString(conn, "READY")
		require.NoError(t, err)
		require.NoError(t, <-w.result)
	})
}

// TestStrangersAreRefused: before anything is written, and without filling the log.
func TestStrangersAreRefused(t *testing.T) {
	var log journal
	stranger := errors.New("not the host")
	var trust atomic.Bool
	r := &discovery.Responder{Logger: log.logger(), Filter: filter(func(net.Conn) error {
		if trust.Load() {
			return nil
		}
		return stranger
	})}
	waiting(t, r, func(t *testing.T, w *wait) {
		for range 1000 {
			conn := w.connect()
			n, err := conn.Read(make([]byte, 1))
			require.Zero(t, n)
			require.ErrorIs(t, err, io.EOF)
		}
		require.Len(t, log.lines("not the host"), 1)
		pass(10 * time.Second)
		_, _ = w.connect().Read(make([]byte, 1))
		synctest.Wait()
		require.Len(t, log.lines("not the host"), 2)
		require.Len(t, log.lines("more=999"), 1)
		trust.Store(true)
		w.shake(t, "READY")
		require.NoError(t, <-w.result)
	})
}

func TestWaitReadyEndsWithItsContext(t *testing.T) {
	for name, connect := range map[string]bool{"while accepting": false, "during a turn": true} {
		t.Run(name, func(t *testing.T) {
			waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
				start := time.Now()
				if connect {
					conn := w.connect()
					defer shut(conn)
				}
				synctest.Wait()
				w.cancel()
				err := <-w.result
				require.ErrorIs(t, err, context.Canceled)
				require.EqualError(t, err, "discovery: no READY: context canceled")
				require.Zero(t, time.Since(start))
			})
		})
	}
}

type passing struct{ error }

func (passing) Temporary() bool { return true }

// TestListenerErrors: those that pass are waited out, less and less often; others
// are returned.
func TestListenerErrors(t *testing.T) {
	var log journal
	waiting(t, &discovery.Responder{Logger: log.logger()}, func(t *testing.T, w *wait) {
		start := time.Now()
		for range 12 {
			w.errs <- passing{errors.New("too many open files")}
		}
		synctest.Wait()
		require.Greater(t, time.Since(start), 3*time.Second, "it backs off")
		require.Len(t, log.lines("too many open files"), 12)
		require.Len(t, log.lines("in=1s"), 4)
		shut(w.connect())
		w.errs <- passing{errDown}
		synctest.Wait()
		require.Len(t, log.lines("in=5ms"), 2, "it begins anew after a connection")
		require.Equal(t, signature, w.shake(t, "READY"))
		require.NoError(t, <-w.result)
	})
	waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
		start := time.Now()
		w.errs <- passing{errDown}
		synctest.Wait()
		w.cancel()
		require.ErrorIs(t, <-w.result, context.Canceled)
		require.Zero(t, time.Since(start), "while backing off")
	})
	waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
		conn := w.connect()
		defer shut(conn)
		w.errs <- errDown
		err := <-w.result
		require.ErrorIs(t, err, errDown)
		_, err = conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "left open")
	})
	waiting(t, &discovery.Responder{}, func(t *testing.T, w *wait) {
		synctest.Wait()
		_ = w.Close()
		require.ErrorIs(t, <-w.result, net.ErrClosed)
	})
}

func TestResponderFields(t *testing.T) {
	for what, r := range map[string]*discovery.Responder{
		"Responder.Filter":   {Protocol: protocol},
		"Protocol.Signature": {Filter: anyone},
	} {
		t.Run(what, func(t *testing.T) {
			ln := newDoor()
			err := r.WaitReady(t.Context(), ln)
			require.ErrorContains(t, err, what)
			requirePermanent(t, err)
			require.Positive(t, ln.closes.Load(), "the listener was left open")
		})
	}
}

// TestOldHost: it writes READY without reading the signature, and may be gone
// when the guest gets to it.
func TestOldHost(t *testing.T) {
	peer, ln := unixPeer(t, protocol.HandshakePort)
	for range 3 { // found, and found again: connections that only close
		conn, err := peer.Dial(t.Context(), protocol.HandshakePort)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	conn, err := peer.Dial(t.Context(), protocol.HandshakePort)
	require.NoError(t, err)
	_, err = io.WriteString(conn, "READY")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	r := &discovery.Responder{Protocol: protocol, Filter: anyone}
	require.NoError(t, r.WaitReady(t.Context(), ln))
}
