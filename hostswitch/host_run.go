// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// A hostRun is one Run of a Host: a state machine that one goroutine turns. What
// takes time runs beside it, a handshake step and a connection at a time at most,
// and is joined before the next takes its place. A connection is taken whenever
// it comes: a guest that was slow to connect has left its handshake port, and
// would never be found again.
type hostRun struct {
	*Host
	hostTimes
	sw                           *Switch
	log                          *slog.Logger
	report                       func(error)
	events                       events
	connectTimeout, stallTimeout time.Duration

	guest    *hostGuest       // the VM that was found last
	step     *handshakeStep   // under way
	retry    <-chan time.Time // when the handshake begins again
	waiting  <-chan time.Time // when to say that there is no connection
	overdue  <-chan time.Time // when the guest's time to connect is over
	carriage *carriage        // the guest's connection

	candidate *carriage        // a further one, which replaces it at its first frame …
	trial     <-chan time.Time // … if that comes until then
	leaving   sync.WaitGroup   // guests whose bridges still end

	failures int  // handshakes in a row that led to no connection
	short    int  // connections in a row that ended within seconds
	down     bool // a connection was lost or stalled, and no frame came since
}

func (r *hostRun) makeSwitch() (*Switch, error) {
	cfg := r.Config
	if cfg.Logger == nil {
		cfg.Logger = r.Logger
	}
	if cfg.OnEvent == nil && r.OnEvent != nil {
		cfg.OnEvent = func(ev Event) {
			if ev.Kind != Connected && ev.Kind != Lost {
				r.events.emit(ev)
			}
		}
	}
	sw, err := New(cfg)
	if f := (*ForwardError)(nil); err == nil || errors.As(err, &f) && !errors.Is(err, ErrForwardInvalid) {
		return sw, err
	}
	return nil, permanentError{err}
}

func (r *hostRun) logSnapshots(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.after(r.ReportEvery):
			r.log.Info("network", "snapshot", r.sw.Snapshot())
		}
	}
}

// loop turns the machine until ctx ends, or something ends it for good.
func (r *hostRun) loop(parent context.Context) (err error) {
	// What runs beside it ends with it, not with parent: an end that was asked
	// for is not mistaken for one that wants telling (FAILURES 8).
	ctx, end := context.WithCancel(context.WithoutCancel(parent))
	defer r.stop()
	defer end()
	r.waiting = r.after(waitingEvery)
	var look <-chan time.Time
	if r.stallTimeout > 0 {
		look = r.after(r.stallTimeout / looks)
	}
	r.discover(ctx)
	for err == nil {
		select {
		case <-parent.Done():
			return nil
		case <-r.sw.ctx.Done(): // somebody closed a Switch that is not ours
			err = permanentError{fmt.Errorf("hostswitch: host: %w", ErrClosed)}
		case <-r.waiting:
			r.waiting = r.after(waitingEvery)
			if r.carriage == nil {
				r.log.Info("waiting for the guest")
				r.events.emit(Event{Kind: Waiting})
			}
		case <-look:
			r.lookAtCarriage(ctx)
			look = r.after(r.stallTimeout / looks)
		case <-r.retry:
			r.retry = nil
			r.discover(ctx)
		case res := <-r.step.results():
			r.step = nil
			err = r.stepDone(ctx, res)
		case <-r.overdue:
			// Residual state of Hyper-V answers the handshake before the guest
			// exists, and then nobody comes (FAILURES 16).
			r.overdue = nil
			r.events.emit(Event{Kind: Phantom, Peer: r.guest.name})
			r.failed(fmt.Errorf("guest %s took READY, but did not connect within %s", r.guest.name, r.connectTimeout))
		case conn := <-r.guest.accepted():
			r.take(ctx, conn)
		case <-r.guest.ended():
			err := fmt.Errorf("listen for guest %s: %w", r.guest.name, r.guest.err)
			r.guest.unlisten()
			if r.carriage == nil {
				r.failed(err)
			} else { // it listens again with the next handshake
				r.log.Warn("no further connection of the guest will be taken", "error", err)
			}
		case <-r.carriage.heard():
			r.carriage.silent = nil
			r.up()
		case <-r.carriage.ended():
			r.lost()
		case <-r.candidate.heard():
			r.replace()
		case <-r.candidate.ended():
			r.dismiss("it ended without a frame")
		case <-r.trial:
			r.dismiss("no frame came within " + r.connectTimeout.String())
		}
	}
	if parent.Err() != nil {
		return nil
	}
	return err
}

// stop ends and joins what runs beside the loop.
func (r *hostRun) stop() {
	r.step.abandon()
	r.candidate.close()
	r.carriage.close()
	if r.guest != nil {
		r.guest.close()
	}
	r.leaving.Wait()
}

// discover begins the handshake: find the VM. Beside a connection, which is stalled
// then, only the guest that has it is looked for: another that answers says nothing
// about that.
func (r *hostRun) discover(ctx context.Context) {
	d := r.Discoverer
	if r.carriage != nil {
		only, match := *d, d.Match
		only.Match = func(p discovery.Peer) bool { return p.ID() == r.guest.name && (match == nil || match(p)) }
		d = &only
	}
	r.step = begin(ctx, func(ctx context.Context) handshakeResult {
		peer, err := d.Discover(ctx)
		return handshakeResult{peer: peer, err: err}
	})
}

// stepDone goes on with the handshake. It returns an error that trying again
// does not mend.
func (r *hostRun) stepDone(ctx context.Context, res handshakeResult) error {
	if isPermanent(res.err) {
		return res.err
	}
	if res.err != nil {
		r.failed(res.err)
		return nil
	}
	if res.ready {
		if r.connectTimeout > 0 {
			r.overdue = r.after(r.connectTimeout)
		}
		r.guest.startBridges(r)
		return nil
	}
	r.log.Info("found the guest", "peer", res.peer.ID())
	r.events.emit(Event{Kind: Found, Peer: res.peer.ID()})
	// It answers the handshake: what it had for a connection, it has no more.
	r.dismiss("the guest answers the handshake again")
	r.endCarriage("the guest answers the handshake again")
	if err := r.meet(ctx, res.peer); isPermanent(err) {
		return fmt.Errorf("hostswitch: host: %w", err)
	} else if err != nil {
		r.failed(err)
		return nil
	}
	peer := res.peer
	r.step = begin(ctx, func(ctx context.Context) handshakeResult {
		return handshakeResult{peer: peer, ready: true, err: r.Discoverer.SignalReady(ctx, peer)}
	})
	return nil
}

// meet listens for the peer, unless it does so already: before READY, because the
// guest dials at once.
func (r *hostRun) meet(ctx context.Context, peer discovery.Peer) error {
	var left <-chan struct{}
	if r.guest != nil && r.guest.name != peer.ID() {
		left = r.guest.leave(&r.leaving)
		r.guest = nil
	}
	if r.guest != nil && r.guest.listening() {
		return nil
	}
	ln, err := peer.Listen(r.Discoverer.Protocol.DataPort)
	if err != nil {
		return fmt.Errorf("listen for guest %s: %w", peer.ID(), err)
	}
	if r.guest == nil {
		r.guest = newHostGuest(ctx, peer, left)
	}
	r.guest.listen(r.log, ln)
	return nil
}

// failed notes that the handshake led nowhere, and sets the time of the next.
func (r *hostRun) failed(err error) {
	r.failures++
	err = fmt.Errorf("hostswitch: host: %w", err)
	r.log.Warn("no connection with the guest", "error", err)
	r.report(err)
	r.again(r.failures)
}

func (r *hostRun) again(failures int) {
	r.step.abandon()
	r.step, r.overdue = nil, nil
	r.retry = r.after(r.pause(failures))
}

// pause is nothing at first, then doubles from a second on.
func pause(failures int) time.Duration {
	if failures <= 1 {
		return 0
	}
	return min(time.Second<<min(failures-2, 10), maxPause)
}

// take takes a connection. One beside another has to prove itself by a frame: whoever
// in the VM may connect could else cut the guest off by that alone. The last to come
// is the one on trial.
func (r *hostRun) take(ctx context.Context, conn net.Conn) {
	c := startCarriage(ctx, r.sw, conn, r.guest.name, r.now())
	if r.carriage == nil {
		r.carry(c)
		return
	}
	r.dismiss("the guest has connected once more")
	r.candidate = c
	if r.connectTimeout > 0 {
		r.trial = r.after(r.connectTimeout)
	}
}

// dismiss closes a connection on trial.
func (r *hostRun) dismiss(why string) {
	if r.candidate != nil {
		r.log.Warn("a second connection was not the guest's", "peer", r.candidate.name, "reason", why)
		r.candidate.close()
	}
	r.candidate, r.trial = nil, nil
}

// replace puts the connection on trial in the place of the older one.
func (r *hostRun) replace() {
	c := r.candidate
	r.candidate, r.trial = nil, nil
	r.endCarriage("the guest has connected again")
	r.carry(c)
}

// carry makes a connection the guest's.
func (r *hostRun) carry(c *carriage) {
	r.step.abandon()
	r.step, r.retry, r.overdue, r.failures = nil, nil, nil, 0
	r.carriage = c
	r.guest.startBridges(r)
	r.log.Info("connected", "peer", r.guest.name)
	r.events.emit(Event{Kind: Connected, Peer: r.guest.name})
}

// up is told when frames come: at first, again, or still.
func (r *hostRun) up() {
	if r.down {
		r.down = false
		r.events.emit(Event{Kind: Recovered, Peer: r.guest.name})
	}
	r.report(nil)
}

// lost notes the end of the connection, and begins the handshake again.
func (r *hostRun) lost() {
	c := r.carriage
	r.carriage = nil
	r.tellLost(c, c.err)
	if next := r.candidate; next != nil && !next.over() {
		r.candidate, r.trial = nil, nil
		r.carry(next)
		return
	}
	r.again(r.short)
}

// endCarriage closes a connection that something better takes the place of.
func (r *hostRun) endCarriage(why string) {
	if r.carriage == nil {
		return
	}
	c := r.carriage
	r.carriage = nil
	c.close()
	r.tellLost(c, errors.New(why))
}

func (r *hostRun) tellLost(c *carriage, cause error) {
	ev := Event{Kind: Lost, Peer: c.name, Up: r.now().Sub(c.began), Err: cause}
	if ev.Up < shortConnection {
		r.short++
	} else {
		r.short = 0
	}
	ev.Short = r.short
	r.events.emitWith(ev, c.last())
	if r.short >= tellShort {
		ev.Kind = Short
		r.events.emitWith(ev, c.last())
	}
	r.down, r.waiting = true, r.after(waitingEvery)
	err := fmt.Errorf("hostswitch: host: connection with guest %s lost after %s", c.name, ev.Up.Round(time.Millisecond))
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	r.log.Warn("connection lost", "peer", c.name, "up", ev.Up, "short", r.short, "error", cause)
	r.report(err)
}

// lookAtCarriage tells a stall, and its end. The handshake is tried beside a
// stalled connection: it answers only if the guest has started anew.
func (r *hostRun) lookAtCarriage(ctx context.Context) {
	c := r.carriage
	if c == nil {
		return
	}
	switch quiet, sent := c.look(r.now()); {
	case c.stalled && quiet == 0:
		c.stalled = false
		r.step.abandon()
		r.step, r.retry = nil, nil
		r.up()
	case !c.stalled && sent && quiet >= r.stallTimeout:
		c.stalled, r.down = true, true
		err := fmt.Errorf("hostswitch: host: connection with guest %s stalled: frames go out, none has come in for %s", c.name, quiet.Round(time.Millisecond))
		r.log.Warn("connection stalled", "peer", c.name, "snapshot", r.sw.Snapshot())
		r.events.emit(Event{Kind: Stalled, Peer: c.name, Err: err})
		r.report(err)
		r.discover(ctx)
	}
}

func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}
