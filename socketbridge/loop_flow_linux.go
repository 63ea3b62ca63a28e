// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A flow is what a direction is, on a loop.
type flow struct {
	mover
	own      buffer
	p        *pair
	src, dst *end
	moved    int64         // bytes that dst has accepted
	total    *atomic.Int64 // the meter's, or nil

	over     bool // nothing more to carry
	discards bool // dst is gone, and what src sends is thrown away
	warned   bool // an event has said that src may be gone
	queued   bool // among those that are ready
}

func (f *flow) init(p *pair, src, dst *end, total *atomic.Int64) {
	f.p, f.src, f.dst, f.total = p, src, dst, total
	f.mover = mover{buffer: &f.own, onLoop: true, splices: true}
}

// opposite returns the other flow of the pair.
func (f *flow) opposite() *flow {
	if f == &f.p.there {
		return &f.p.back
	}
	return &f.p.there
}

// maxRounds bounds what a flow does before others have their turn.
const maxRounds = 16

// run carries until src is dry or dst is full, which an event will tell when it has
// changed, or until others want their turn.
func (f *flow) run() {
	for range maxRounds {
		if f.over || f.p.over || f.pending() && !f.drain() {
			return
		}
		if err := f.receive(f.src.fd, f.discards); again(err) {
			return
		} else if err != nil {
			f.sourceEnded(err)
			return
		}
		if f.discards {
			f.release()
			f.p.lose(f.dst.gone())
		}
	}
	if !f.queued {
		f.queued = true
		f.p.loop.ready = append(f.p.loop.ready, f)
	}
}

func (f *flow) pending() bool { return len(f.data) > 0 || f.held > 0 }

// drain reports whether there may be more to receive: dst has accepted what was
// received, or is gone, and has left f with something to do.
func (f *flow) drain() bool {
	n, err := f.deliver(f.dst.fd)
	if f.held > 0 && again(err) && f.dst.widen() {
		var more int
		more, err = f.deliver(f.dst.fd)
		n += more
	}
	if f.moved += int64(n); n > 0 {
		if f.total != nil {
			f.total.Add(int64(n))
		}
		if f.p.idle > 0 {
			f.p.last = f.p.loop.now()
		}
	}
	if again(err) {
		if f.warned || f.dst.orderly {
			f.p.checkLater()
		}
		if !f.dst.full {
			f.p.listenFor(f.dst, true)
		}
		return false
	}
	if err == nil {
		f.abandon()
		return true
	}
	switch {
	case f.dst.closed(err): // discard tells what it costs
	case errors.Is(err, syscall.ECONNRESET):
		f.dst.broken = f.dst.fault("write", err)
		f.p.lose(f.dst.broken)
		f.p.lingers()
	default:
		f.p.close(f.dst.fault("write", err))
		return false
	}
	f.discard(false)
	return !f.over && !f.p.over
}

// abandon gives back what held the bytes under way, and them with it.
func (f *flow) abandon() {
	f.release()
	if f.pipe != nil {
		f.putPipe()
	}
}

func (f *flow) sourceEnded(err error) {
	switch {
	case f.discards && errors.Is(err, io.EOF):
		f.end()
	case f.discards:
		f.p.close(f.src.fault("read", err))
	case errors.Is(err, io.EOF):
		f.closeWrite()
	case f.src.unread(err):
		f.p.lose(f.src.fault("read", err))
		f.closeWrite()
	default:
		f.p.close(f.src.fault("read", err))
	}
}

// closeWrite passes the EOF on. That dst is gone already is for the opposite flow to
// find: what it was sent, it has accepted.
func (f *flow) closeWrite() {
	if f.src.broken != nil {
		f.p.close(f.src.broken)
	} else if err := unix.Shutdown(f.dst.fd, unix.SHUT_WR); err != nil && !isGone(err) {
		f.p.close(f.dst.fault("close", err))
	} else {
		f.end()
	}
}

// discard is what is left to do when dst is gone, as direction.discard is. If that was
// found by a look at it, and src sends nothing, there may be nothing to be done.
func (f *flow) discard(looked bool) {
	f.discards = true
	if f.pending() {
		f.p.lose(f.dst.gone())
		f.abandon()
	}
	sends := f.sweep(f.src.fd) // which SHUT_RD may hide
	if f.src.orderly {
		_ = unix.Shutdown(f.src.fd, unix.SHUT_RD)
		sends = f.sweep(f.src.fd) || sends // to the last byte: else closing resets
	}
	if sends {
		f.p.lose(f.dst.gone())
	}
	if over := f.opposite().over; over && (f.src.orderly || looked && !sends) {
		f.end()
	} else if over {
		f.p.lingers()
	}
}

// end is called when f has nothing more to carry. The last one closes; the first keeps
// an eye on its source.
func (f *flow) end() {
	f.over = true
	f.leave()
	other := f.opposite()
	switch {
	case other.over:
		f.p.close(nil)
		return
	case other.discards && other.src.orderly:
		if other.sweep(other.src.fd) {
			f.p.lose(other.dst.gone())
		}
		other.end()
		return
	case other.discards:
		f.p.lingers()
	}
	if f.warned {
		f.checkSource()
	}
}

// checkSource acts upon the state of src. If that is gone, no byte can go the opposite
// way any more.
func (f *flow) checkSource() {
	err := f.src.state(f.src.fd)
	switch {
	case err == nil:
		return
	case errors.Is(err, errHungUp):
	case errors.Is(err, errResetAfterEOF): // what it had sent is complete, and still delivered
		f.p.lose(f.src.fault("read", unix.ECONNRESET))
	default:
		f.p.close(f.src.fault("read", err))
		return
	}
	if other := f.opposite(); !other.over && !other.discards {
		other.discard(true)
		other.run() // as far as that has not ended it
	}
}
