// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// A handshakeStep is a part of the handshake that takes time. The zero pointer is
// no step.
type handshakeStep struct {
	cancel context.CancelFunc
	result chan handshakeResult // one, sent as the last thing
}

type handshakeResult struct {
	peer  discovery.Peer
	ready bool // READY was sent
	err   error
}

func begin(ctx context.Context, do func(context.Context) handshakeResult) *handshakeStep {
	ctx, cancel := context.WithCancel(ctx)
	s := &handshakeStep{cancel: cancel, result: make(chan handshakeResult, 1)}
	go func() {
		defer cancel()
		s.result <- do(ctx)
	}()
	return s
}

// results is nil, which blocks, if there is no step.
func (s *handshakeStep) results() <-chan handshakeResult {
	if s == nil {
		return nil
	}
	return s.result
}

// abandon ends a step and waits for it.
func (s *handshakeStep) abandon() {
	if s != nil {
		s.cancel()
		<-s.result
	}
}

// A hostGuest is a VM that was found: the listener for its connections, which
// stays open while hands are shaken again, and what runs for it.
type hostGuest struct {
	peer  discovery.Peer
	name  string
	conns chan net.Conn
	done  chan struct{} // closed when the listener has ended by itself; nil: there is none
	err   error         // why; to be read after done

	ctx       context.Context
	cancel    context.CancelFunc
	accepting sync.WaitGroup
	bridges   sync.Once
	bridging  sync.WaitGroup
	left      <-chan struct{} // closed when the bridges of the guest before have ended; nil: there was none
}

func newHostGuest(ctx context.Context, peer discovery.Peer, left <-chan struct{}) *hostGuest {
	g := &hostGuest{peer: peer, name: peer.ID(), conns: make(chan net.Conn), left: left}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// listen takes connections from ln, which it closes.
func (g *hostGuest) listen(log *slog.Logger, ln net.Listener) {
	done := make(chan struct{})
	g.done = done
	g.accepting.Go(func() {
		defer close(done)
		release := onDone(g.ctx, func() { _ = ln.Close() })
		g.err = acceptLoop(g.ctx, log, ln, passing, func(conn net.Conn) {
			select {
			case g.conns <- conn:
			case <-g.ctx.Done():
				_ = conn.Close()
			}
		})
		release()
		_ = ln.Close()
	})
}

func (g *hostGuest) listening() bool { return g.done != nil }

// unlisten is to be called when the listener has ended.
func (g *hostGuest) unlisten() { g.done = nil }

// startBridges runs OnGuest, once for each guest, again after an error.
func (g *hostGuest) startBridges(r *hostRun) {
	if r.OnGuest == nil {
		return
	}
	g.bridges.Do(func() {
		g.bridging.Go(func() {
			if g.left != nil {
				select {
				case <-g.left:
				case <-g.ctx.Done():
					return
				}
			}
			for failures := 1; ; failures++ {
				began := r.now()
				err := r.OnGuest(g.ctx, g.peer)
				if err == nil || g.ctx.Err() != nil {
					return
				}
				r.log.Warn("what runs for the guest failed", "peer", g.name, "error", err)
				r.events.emit(Event{Kind: GuestFailed, Peer: g.name, Err: err})
				if r.now().Sub(began) > maxPause {
					failures = 1
				}
				select {
				case <-g.ctx.Done():
					return
				case <-r.after(r.pause(failures + 1)):
				}
			}
		})
	})
}

// close ends all that belongs to the guest, and waits.
func (g *hostGuest) close() {
	g.cancel()
	g.accepting.Wait()
	g.bridging.Wait()
}

// leave is close for who has more to do than to wait for bridges that drain: they are
// waited for beside, and have ended when left is closed.
func (g *hostGuest) leave(beside *sync.WaitGroup) (left <-chan struct{}) {
	g.cancel()
	g.accepting.Wait()
	done := make(chan struct{})
	beside.Go(func() {
		defer close(done)
		g.bridging.Wait()
		if g.left != nil {
			<-g.left
		}
	})
	return done
}

func (g *hostGuest) accepted() <-chan net.Conn {
	if g == nil {
		return nil
	}
	return g.conns
}

func (g *hostGuest) ended() <-chan struct{} {
	if g == nil {
		return nil
	}
	return g.done
}

// A carriage is a data connection that is being carried. The zero pointer is
// none.
type carriage struct {
	name   string
	began  time.Time
	port   *port // nil if the Switch did not take the connection
	cancel context.CancelFunc
	done   chan struct{}   // closed as the last thing
	err    error           // why it ended; to be read after done
	silent <-chan struct{} // closed at the first frame; nil after that was told

	stalled bool
	in      uint64    // port.framesIn when it was looked at
	since   time.Time // when that was first seen
	sent    uint64    // port.meant at the look after it
	idle    bool      // there was such a look
}

func startCarriage(ctx context.Context, sw *Switch, conn net.Conn, name string, now time.Time) *carriage {
	ctx, cancel := context.WithCancel(ctx)
	c := &carriage{name: name, began: now, cancel: cancel, done: make(chan struct{})}
	started := make(chan *port, 1)
	go func() {
		defer cancel()
		defer close(c.done)
		defer close(started)
		c.err = sw.attach(ctx, conn, Port{Name: name}, func(p *port) { started <- p })
	}()
	if c.port = <-started; c.port != nil {
		c.silent = c.port.heard
	}
	c.since = c.began
	return c
}

// look says for how long no frame has come in, 0 if one has since the last look,
// and whether any went out meanwhile. The time is that of looks, not of frames: it
// does not jump with the wall clock. The frames that go out right after the last
// that came in do not count, because they are the end of a conversation; nor do
// those that were sent to all, which nobody has to answer.
func (c *carriage) look(now time.Time) (quiet time.Duration, sent bool) {
	if c.port == nil {
		return 0, false
	}
	in, out := c.port.framesIn.Load(), c.port.meant.Load()
	switch {
	case in != c.in:
		c.in, c.since, c.idle = in, now, false
		return 0, false
	case !c.idle:
		c.sent, c.idle = out, true
	}
	return now.Sub(c.since), out > c.sent
}

// last is what the network looked like as the connection ended, which it has; nil if
// the Switch never had it.
func (c *carriage) last() func() Snapshot {
	if c.port == nil {
		return nil
	}
	return func() Snapshot { return c.port.last }
}

func (c *carriage) heard() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.silent
}

func (c *carriage) ended() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.done
}

// over reports whether the connection has ended.
func (c *carriage) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// close ends the connection and waits for it.
func (c *carriage) close() {
	if c != nil {
		c.cancel()
		<-c.done
	}
}
