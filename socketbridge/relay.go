// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A relay is one running pipe. Its owner is the goroutine that called pipe, which
// carries there, from a to b; one more goroutine carries back.
type relay struct {
	a, b        side
	there, back direction
	began       time.Time
	idle        time.Duration
	last        atomic.Int64   // when a byte was accepted last, since began; kept if idle is limited
	helpers     sync.WaitGroup // whatever runs beside the owner

	mu     sync.Mutex
	over   bool        // a and b are closed, or being closed
	err    error       // why they are, if it was no good end
	lost   error       // why bytes were thrown away: who should have got them is gone
	forget func() bool // stops ctx's AfterFunc
	timer  *time.Timer // of idle
	linger *time.Timer // runs once there is nothing left to do but to read a peer's leftovers
}

// lingerTime is for how long a connection is read although nobody is there to take it.
const lingerTime = 2 * time.Second

func newRelay(a, b HalfCloser, idle time.Duration, m meter) *relay {
	r := &relay{began: time.Now(), idle: idle}
	r.a.init("a", a)
	r.b.init("b", b)
	r.there.init(r, &r.a, &r.b, m.aToB)
	r.back.init(r, &r.b, &r.a, m.bToA)
	return r
}

// start starts what runs beside the owner.
func (r *relay) start(ctx context.Context) {
	r.mu.Lock() // what starts here and ends at once finds the fields set
	defer r.mu.Unlock()
	if ctx.Done() != nil {
		r.helpers.Add(1)
		r.forget = context.AfterFunc(ctx, func() {
			defer r.helpers.Done()
			r.close(cancelled(ctx))
		})
	}
	if r.idle > 0 {
		r.helpers.Add(1)
		r.timer = time.AfterFunc(r.idle, r.checkIdle)
	}
	r.helpers.Go(r.back.run)
}

// wait waits until the other direction and all helpers have ended.
func (r *relay) wait() (Stats, error) {
	r.helpers.Wait()
	if r.err == nil {
		r.err = r.lost
	}
	return Stats{AToB: r.there.moved, BToA: r.back.moved, Duration: time.Since(r.began)}, r.err
}

func cancelled(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ctx.Err()) {
		return fmt.Errorf("socketbridge: pipe: %w", cause)
	}
	return fmt.Errorf("socketbridge: pipe: %w: %w", ctx.Err(), cause)
}

func (r *relay) checkIdle() {
	r.mu.Lock()
	if !r.over {
		if rest := r.idle - time.Since(r.began) + time.Duration(r.last.Load()); rest > 0 {
			r.timer.Reset(rest)
			r.mu.Unlock()
			return
		}
	}
	r.mu.Unlock()
	r.close(errIdle)
	r.helpers.Done()
}

// close closes both sides, once, which ends all that still goes on. With an error
// the end is an abortive one.
func (r *relay) close(err error) {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return
	}
	r.over = true
	r.err = err
	if r.forget != nil && r.forget() {
		r.helpers.Done()
	}
	for _, timer := range []*time.Timer{r.timer, r.linger} {
		if timer != nil && timer.Stop() {
			r.helpers.Done()
		}
	}
	r.mu.Unlock()
	if err != nil {
		reset(r.a.conn)
		reset(r.b.conn)
	}
	_ = r.a.conn.Close() // after CloseWrite, or abortive: nothing depends on it
	_ = r.b.conn.Close()
}

func (r *relay) opposite(d *direction) *direction {
	if d == &r.there {
		return &r.back
	}
	return &r.there
}

// ended is called by a direction when it has nothing more to carry. The last one
// closes; the first keeps an eye on its source.
func (r *relay) ended(d *direction) {
	other := r.opposite(d)
	r.mu.Lock()
	d.over = true
	last := other.over
	if !last && other.discards && (!other.src.orderly || !other.halt()) {
		r.lingers()
	}
	r.mu.Unlock()
	if last {
		r.close(nil)
	} else {
		d.watch()
	}
}

// discards reports whether d, whose destination is gone, is to read on and throw
// away: as long as the other direction still delivers what that destination had sent.
// If src is not known to be orderly and sends, it is then read on for a while: TCP that
// is closed with bytes unread resets, and with that takes back what is on its way to
// the peer.
func (r *relay) discards(d *direction, sends bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.discards = true
	if r.over {
		return false
	}
	if r.opposite(d).over {
		if d.src.orderly || d.quit.Load() && !sends {
			return false
		}
		r.lingers()
	}
	return d.resume()
}

// lingers has the relay closed when lingerTime has passed. r.mu is held.
func (r *relay) lingers() {
	if r.over || r.linger != nil {
		return
	}
	r.helpers.Add(1)
	r.linger = time.AfterFunc(lingerTime, func() {
		defer r.helpers.Done()
		r.mu.Lock()
		err := cmp.Or(r.a.broken, r.b.broken)
		r.mu.Unlock()
		r.close(err)
	})
}

// breaks notes that a write found s reset. What it had sent before is delivered, if
// there is someone to take it, before that ends the relay.
func (r *relay) breaks(s *side, err error) {
	r.lose(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	s.broken = err
	r.lingers()
}

// lose notes that bytes were thrown away.
func (r *relay) lose(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost == nil {
		r.lost = err
	}
}
