// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of a Bridge.
const (
	defaultDialTimeout  = 10 * time.Second
	defaultDrainTimeout = 10 * time.Second
)

// maxSpare bounds the goroutines that wait for the next connection.
const maxSpare = 8

// A Bridge accepts connections, dials a target for each, and joins the two as
// [PipeContext] does. It may be run again, and more than once at a time. It is not to
// be copied.
//
// What the listener accepts and Dial returns is the Bridge's from then on. On Linux it
// takes the sockets out of any *net.TCPConn, stream *net.UnixConn and *vsock.Conn that it
// joins, closes these, and carries many connections on one goroutine; so a Close by
// somebody else, or a deadline, does not end a connection, and who shares a socket with it
// must not make it block. It doubles a unix socket's send buffer of the usual size once
// that is full. An idle connection costs about 1 KB, and each call of Serve from its first
// one on a thread for every second processor, up to four. Other connections, and those of
// other systems, have two goroutines each.
type Bridge struct {
	// Listen opens the listener for Run. Serve does not need it.
	Listen func(ctx context.Context) (net.Listener, error)

	// Dial opens a connection to the target. Required. It is called for each
	// connection that the filter has let in, at once for many. It has to end when
	// ctx does: if it does not, the client is sent away all the same, but Serve
	// waits for it.
	Dial func(ctx context.Context) (net.Conn, error)

	// Filter says who is let in, before the target is dialled. Required: say
	// AllowAll if everyone may come in. It is called from the goroutine of the
	// connection, so a slow one delays nobody else.
	Filter PeerFilter

	// DialTimeout bounds filter and dial of one connection, not counting a wait for its
	// turn between the two: after it the ctx of Dial has ended and the client's
	// connection is closed. 0: 10 s, negative: no bound.
	DialTimeout time.Duration

	// DrainTimeout is how long connections that are there when Serve is told to end
	// may go on before they are cut. 0: 10 s, negative: as long as they like. To
	// cut them at once, give a nanosecond.
	DrainTimeout time.Duration

	// IdleTimeout is how long a connection may carry nothing in either direction
	// before it is closed. 0 or negative: for ever.
	IdleTimeout time.Duration

	// MaxConns bounds the connections of one run at a time that have a target or dial
	// it. The next one waits until one of them has ended. Up to 16 such are accepted,
	// so that strangers are refused meanwhile and not in the way; those after them wait
	// in the listener's backlog, unaccepted. 0 or negative: no bound.
	MaxConns int

	// Logger is told of refusals, failed dials and what keeps the Bridge from
	// accepting, at most one line in 10 s for each of these; of a listener that is
	// broken; at debug level of every connection. nil: silent.
	Logger *slog.Logger

	counts counts
}

// A permanentError is one that the next attempt meets again; a supervisor asks
// for it by the method.
type permanentError struct{ error }

func (e permanentError) Permanent() bool { return true }
func (e permanentError) Unwrap() error   { return e.error }

// check returns what keeps the Bridge from working at all.
func (b *Bridge) check() error {
	var err error
	switch {
	case b.Filter == nil:
		err = errors.New("Bridge.Filter is nil: say who may connect, such as AllowCID(2), or AllowAll()")
	case mistake(b.Filter) != nil:
		err = fmt.Errorf("Bridge.Filter refuses everyone: %w", mistake(b.Filter))
	case b.Dial == nil:
		err = errors.New("Bridge.Dial is nil: say where connections lead, such as DialUnix(path)")
	default:
		return nil
	}
	return permanentError{fmt.Errorf("socketbridge: %w", err)}
}

// Run opens the listener and calls Serve. It also returns nil when ctx ends while
// the listener is being opened. Where the system has no such listener the error is
// permanent, as that for a missing field is.
func (b *Bridge) Run(ctx context.Context) error {
	if err := b.check(); err != nil {
		return err
	}
	if b.Listen == nil {
		return permanentError{errors.New("socketbridge: Bridge.Listen is nil: set it for Run, or call Serve with a listener")}
	}
	ln, err := b.Listen(ctx)
	switch {
	case err == nil:
		return b.Serve(ctx, ln)
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, errors.ErrUnsupported):
		return permanentError{fmt.Errorf("socketbridge: listen: %w", err)}
	default:
		return fmt.Errorf("socketbridge: listen: %w", err)
	}
}

// Serve bridges the connections of ln until ctx ends or ln cannot accept any more.
//
// When ctx ends, ln is closed at once. Connections that have been accepted go on,
// those that wait or are being dialled too, until they end by themselves or
// DrainTimeout has passed; then they are cut. Serve returns nil then, cut or not.
//
// It waits out errors of Accept that pass, such as having no descriptor left. Any
// other one it returns, wrapped, once the connections have ended or were cut in
// the same way, whether or not ctx ends meanwhile; a DrainTimeout without bound is
// then 10 s, as nobody has told it to end who could lose patience. A missing Filter or Dial is a permanent error (it has a method
// Permanent() bool that returns true).
//
// It owns ln: when it returns, ln, all connections and all goroutines are gone.
// Panics of Filter and Dial are not recovered.
func (b *Bridge) Serve(ctx context.Context, ln net.Listener) error {
	if ln == nil {
		return permanentError{errors.New("socketbridge: Serve was given a nil listener")}
	}
	defer func() { _ = ln.Close() }()
	if err := b.check(); err != nil {
		return err
	}
	r := &run{Bridge: b, log: b.Logger, next: make(chan net.Conn)}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if b.MaxConns > 0 {
		r.slots = make(chan struct{}, b.MaxConns)
		r.entries = make(chan struct{}, b.MaxConns+maxWaiting)
	}
	conns, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cut := func() {
		cancel()
		r.loops.cut(cancelled(conns))
	}
	defer r.loops.stop()
	defer cut()
	detach := closeWhenDone(ctx, ln)
	err := r.accept(ctx, ln, func(conn net.Conn) { r.attend(conns, conn) })
	close(r.next)
	defer r.crew.Wait()
	told, patience := ctx.Err() != nil, b.DrainTimeout
	detach()
	_ = ln.Close() // nobody shall wait in the backlog for the others to end
	if !told {
		patience = max(patience, 0)
		if active := b.counts.active.Load(); active > 0 { // else the caller knows at once
			r.log.Error("socketbridge: the listener is broken, waiting for the connections to end", "address", ln.Addr(), "error", err, "active", active)
		}
	}
	r.drain(patience, cut)
	r.refused.flush()
	r.failed.flush()
	r.pausing.flush()
	if told {
		return nil
	}
	return fmt.Errorf("socketbridge: accept on %v: %w", ln.Addr(), err)
}

// run is one call of Serve.
type run struct {
	*Bridge
	log                      *slog.Logger
	loops                    loops
	serving                  sync.WaitGroup // connections
	crew                     sync.WaitGroup // goroutines that see to connections
	spare                    atomic.Int32   // those of them that wait for next
	next                     chan net.Conn
	slots                    chan struct{} // for a target; nil: no bound
	entries                  chan struct{} // for a connection; nil: no bound
	refused, failed, pausing throttle
}

// drain waits for the connections, and cuts them when their time is over.
func (r *run) drain(patience time.Duration, cut context.CancelFunc) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.serving.Wait()
	}()
	if patience < 0 {
		<-ended
		return
	}
	timer := time.NewTimer(cmp.Or(patience, defaultDrainTimeout))
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		r.log.Info("socketbridge: cutting the connections that are left", "active", r.counts.active.Load())
		cut()
		<-ended
	}
}

// attend has one of the crew see to a connection, one that waits if there is one: a new
// goroutine would have to grow a stack first.
func (r *run) attend(ctx context.Context, conn net.Conn) {
	r.serving.Add(1)
	select {
	case r.next <- conn:
		return
	default:
	}
	r.crew.Go(func() {
		for more := true; more; {
			r.serve(ctx, conn)
			if conn, more = nil, r.spare.Add(1) <= maxSpare; more {
				conn, more = <-r.next
			}
			r.spare.Add(-1)
		}
	})
}

// serve asks whether conn may come in, and joins it with a target.
func (r *run) serve(ctx context.Context, conn net.Conn) {
	joined := false
	defer func() { // also if Filter or Dial ended the goroutine
		if !joined {
			_ = conn.Close()
			release(r.entries)
			r.serving.Done()
		}
	}()
	client, target := r.open(ctx, conn)
	if target == nil {
		return
	}
	joined = true
	peer, logs := "", r.log.Enabled(ctx, slog.LevelDebug)
	if logs {
		peer = peerName(conn)
		r.log.Debug("socketbridge: connected", "peer", peer)
	}
	idle, m := max(r.IdleTimeout, 0), meter{&r.counts.toTarget, &r.counts.toClient}
	ended := func(stats Stats, err error) {
		if logs {
			r.log.Debug("socketbridge: disconnected", "peer", peer, "to_target", stats.AToB, "to_client", stats.BToA,
				"duration", stats.Duration, "error", err)
		}
		r.ended(err)
	}
	if !r.loops.join(client, target, idle, m, func(stats Stats, err error) {
		if logs { // which may take its time
			r.crew.Go(func() { ended(stats, err) })
		} else {
			ended(stats, err)
		}
	}) {
		// In a goroutine of its own: filter and dial have left a stack that is larger than
		// an idle connection needs.
		r.crew.Go(func() { ended(pipe(ctx, client, target, idle, m)) })
	}
}

// ended is the end of a connection that was joined.
func (r *run) ended(err error) {
	if err != nil {
		r.counts.broken.Add(1)
	}
	r.counts.active.Add(-1)
	release(r.slots)
	release(r.entries)
	r.serving.Done()
}

// open asks the filter, waits for a slot, and dials. Without a target, the connection
// is over and counted. With one, it has a slot and is counted as active.
func (r *run) open(ctx context.Context, conn net.Conn) (client, target HalfCloser) {
	patience := cmp.Or(r.DialTimeout, defaultDialTimeout)
	began := time.Now()
	var err error
	if mayWait(r.Filter) {
		err = bounded(ctx, patience, conn, func(context.Context) error { return r.Filter.Allow(conn) })
	} else {
		err = r.Filter.Allow(conn)
	}
	if err != nil {
		r.counts.refused.Add(1)
		r.refused.warn(r.log, "socketbridge: refused a peer", "peer", peerName(conn), "error", err)
		return nil, nil
	}
	r.counts.accepted.Add(1)
	if patience > 0 {
		patience = max(patience-time.Since(began), 1)
	}
	client, err = halfCloser(conn)
	if err == nil {
		err = acquire(ctx, r.slots)
	}
	if err == nil {
		r.counts.active.Add(1)
		defer func() {
			if target == nil {
				r.counts.active.Add(-1)
				release(r.slots)
			}
		}()
		err = bounded(ctx, patience, conn, func(ctx context.Context) (err error) {
			target, err = r.dial(ctx)
			return err
		})
		if err == nil {
			return client, target
		}
	}
	r.counts.failed.Add(1)
	if ctx.Err() != nil {
		r.log.Debug("socketbridge: cut before it had a target", "peer", peerName(conn), "error", err)
	} else {
		r.failed.warn(r.log, "socketbridge: no connection to the target", "peer", peerName(conn), "error", err)
	}
	return nil, nil
}

// bounded calls f, whose ctx ends, and with it conn, after patience (negative: never).
// So a filter that reads ends, and no client waits for a dial that does not end.
func bounded(ctx context.Context, patience time.Duration, conn io.Closer, f func(context.Context) error) error {
	if patience >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	defer closeWhenDone(ctx, conn)()
	return f(ctx)
}

func (r *run) dial(ctx context.Context) (HalfCloser, error) {
	conn, err := r.Dial(ctx)
	switch {
	case err != nil:
		return nil, err
	case conn == nil:
		return nil, errors.New("Bridge.Dial returned neither a connection nor an error")
	}
	target, err := halfCloser(conn)
	if err != nil {
		_ = conn.Close()
	}
	return target, err
}

// halfCloser returns conn if it can end its writing alone.
func halfCloser(conn net.Conn) (HalfCloser, error) {
	if c, ok := conn.(HalfCloser); ok {
		return c, stream(conn)
	}
	return nil, fmt.Errorf("a %T has no CloseWrite, so it cannot carry a half-close: use a message-mode pipe, a socket, or tls.Conn", conn)
}

// closeWhenDone has c closed when ctx ends. After release it is the caller's
// alone again, and nothing of this is left running.
func closeWhenDone(ctx context.Context, c io.Closer) (release func()) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = c.Close()
	})
	return func() {
		if !stop() {
			<-closed
		}
	}
}
