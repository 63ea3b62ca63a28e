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
	done  chan struct{} // closed when the listener has ended by itself
	err   error         // why; to be read after done

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	bridges sync.Once
}

func newHostGuest(ctx context.Context, log *slog.Logger, peer discovery.Peer, ln net.Listener) *hostGuest {
	g := &hostGuest{peer: peer, name: peer.ID(), conns: make(chan net.Conn), done: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancel(ctx)
	g.wg.Add(1)
	context.AfterFunc(g.ctx, func() {
		defer g.wg.Done()
		_ = ln.Close()
	})
	g.wg.Go(func() {
		defer close(g.done)
		g.err = acceptLoop(g.ctx, log, ln, func(conn net.Conn) {
			select {
			case g.conns <- conn:
			case <-g.ctx.Done():
				_ = conn.Close()
			}
		})
	})
	return g
}

// startBridges runs OnGuest, once for each guest, again after an error.
func (g *hostGuest) startBridges(r *hostRun) {
	if r.OnGuest == nil {
		return
	}
	g.bridges.Do(func() {
		g.wg.Go(func() {
			for failures := 1; ; failures++ {
				began := time.Now()
				err := r.OnGuest(g.ctx, g.peer)
				if err == nil || g.ctx.Err() != nil {
					return
				}
				r.log.Warn("what runs for the guest failed", "peer", g.name, "error", err)
				r.events.emit(Event{Kind: GuestFailed, Peer: g.name, Err: err})
				if time.Since(began) > maxPause {
					failures = 1
				}
				select {
				case <-g.ctx.Done():
					return
				case <-time.After(pause(failures + 1)):
				}
			}
		})
	})
}

// close ends all that belongs to the guest, and waits.
func (g *hostGuest) close() {
	g.cancel()
	g.wg.Wait()
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
	since  time.Time
	port   *port // nil if the Switch did not take the connection
	cancel context.CancelFunc
	done   chan struct{}   // closed as the last thing
	err    error           // why it ended; to be read after done
	silent <-chan struct{} // closed at the first frame; nil after that was told

	stalled bool
	lastIn  int64  // port.lastFrame when it was looked at
	sent    uint64 // port.framesOut when the last frame came in
}

func startCarriage(ctx context.Context, sw *Switch, conn net.Conn, name string) *carriage {
	ctx, cancel := context.WithCancel(ctx)
	c := &carriage{name: name, since: time.Now(), cancel: cancel, done: make(chan struct{})}
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
	return c
}

// look says for how long no frame has come in, 0 if one has since the last look,
// and whether any went out meanwhile.
func (c *carriage) look() (quiet time.Duration, sent bool) {
	if c.port == nil {
		return 0, false
	}
	in, out := c.port.lastFrame.Load(), c.port.framesOut.Load()
	if in != c.lastIn {
		c.lastIn, c.sent = in, out
		return 0, false
	}
	last := c.since
	if in != 0 {
		last = time.Unix(0, in)
	}
	return time.Since(last), out > c.sent
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

// close ends the connection and waits for it.
func (c *carriage) close() {
	if c != nil {
		c.cancel()
		<-c.done
	}
}
