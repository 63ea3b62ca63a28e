// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"cmp"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// A pair is what a relay is, two connections joined, on a loop: the rules by which it
// ends are those of relay and direction, and the tests of Pipe run over both. As all
// of it happens on one goroutine it takes no locks, and nothing has to be woken or
// halted to be told of something.
type pair struct {
	loop        *loop
	a, b        end
	there, back flow
	began       time.Time
	done        func(Stats, error)
	over        bool
	lost        error // why bytes were thrown away: who should have got them is gone

	slot  int32
	timer int // one more than its place in the loop's timers; 0: none
	due   time.Duration

	// Times are since the loop began; 0: none.
	idle   time.Duration // the bound
	last   time.Duration // when a byte was accepted; kept if idle is bounded
	linger time.Duration // when reading a peer's leftovers is over
	check  time.Duration // when a flow that is still blocked then is looked at
}

// An end is one of the sockets. Its side has no connection any more.
type end struct {
	side
	fd     int
	mayEnd uint32 // the events that come with the end of its peer
	full   bool   // it is registered for the event of taking more again
	wide   bool   // it was full
}

// adopt takes a copy of the descriptor.
func (e *end) adopt(conn HalfCloser) bool {
	raw, orderly := rawOf(conn)
	if raw == nil {
		return false
	}
	_, e.local = conn.(*net.UnixConn)
	e.orderly = orderly
	e.mayEnd = unix.EPOLLHUP | unix.EPOLLERR
	if orderly && !e.local {
		e.mayEnd |= unix.EPOLLRDHUP // vsock: a second half may end without the others
	}
	var err error
	if raw.Control(func(fd uintptr) { e.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }) != nil || err != nil {
		e.fd = -1
		return false
	}
	// Who had the connection before, a filter say, may have changed it by the way, as
	// os.File.Fd does; all others would wait with it.
	flags, err := unix.FcntlInt(uintptr(e.fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 {
		err = unix.SetNonblock(e.fd, true)
	}
	// Who has it still may do so again. A call then waits for a tick of the kernel's clock,
	// 10 ms at most, and says what it would have said.
	for _, timeout := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err == nil {
			err = unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, timeout, &unix.Timeval{Usec: 1})
		}
	}
	// To close a socket that lingers waits whatever its flags are. The kernel delivers what
	// is left without that, too.
	if !orderly && err == nil {
		if l, failed := unix.GetsockoptLinger(e.fd, unix.SOL_SOCKET, unix.SO_LINGER); failed == nil && l.Onoff != 0 && l.Linger > 0 {
			err = unix.SetsockoptLinger(e.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
		}
	}
	return err == nil
}

// usualBuffer is what a socket's send buffer is if nobody has set another (socket(7),
// net.core.wmem_default).
const usualBuffer = 212992

// widen has a unix socket that is full for the first time take twice as much, if it has
// the usual buffer, and reports whether that was done: fewer changes between those who
// read and write are worth an eighth of the throughput. SO_SNDBUF doubles what it is set
// to. TCP sizes its buffers itself.
func (e *end) widen() bool {
	if !e.local || e.wide {
		return false
	}
	e.wide = true
	n, err := unix.GetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	return err == nil && n == usualBuffer && unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n) == nil
}

func (e *end) close() {
	if e.fd >= 0 {
		_ = unix.Close(e.fd)
		e.fd = -1
	}
}

func newPair(idle time.Duration, m meter, done func(Stats, error)) *pair {
	p := &pair{idle: min(idle, never/2), began: time.Now(), done: done}
	p.a.name, p.b.name = "a", "b"
	p.a.fd, p.b.fd = -1, -1
	p.there.init(p, &p.a, &p.b, m.aToB)
	p.back.init(p, &p.b, &p.a, m.bToA)
	return p
}

// happens is called with the events of b, or of a.
func (p *pair) happens(events uint32, ofB bool) {
	out, in := &p.there, &p.back
	if ofB {
		out, in = in, out
	}
	if ends := events & out.src.mayEnd; ends != 0 {
		out.warned = true
		if out.over {
			out.checkSource()
		} else if out.pending() {
			p.checkLater()
		}
	}
	if events&^unix.EPOLLOUT != 0 && !out.pending() {
		out.run()
	}
	if in.pending() {
		if events&^readable != 0 {
			in.run()
		}
	} else if !p.over && in.dst.full && events == unix.EPOLLOUT {
		p.listenFor(in.dst, false)
	}
}

// listenFor has the loop be told when e takes more again, or not. It is told only while
// that is waited for: else a peer would wake it with each byte that it reads.
func (p *pair) listenFor(e *end, full bool) {
	number, events := p.slot<<1, uint32(readable)
	if e == &p.b {
		number |= 1
	}
	if e.full = full; full {
		events |= unix.EPOLLOUT
	}
	p.loop.change(e.fd, events, number)
}

// close ends both directions, once. With an error the end is an abortive one.
func (p *pair) close(err error) {
	if p.over {
		return
	}
	p.over = true
	for _, f := range []*flow{&p.there, &p.back} {
		f.release()
		f.leave()
	}
	for _, e := range []*end{&p.a, &p.b} {
		if err != nil && !e.orderly { // its peer shall not take what it has got for all there is
			_ = unix.SetsockoptLinger(e.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		p.loop.unregister(e.fd)
		e.close()
	}
	p.loop.drop(p)
	p.done(Stats{AToB: p.there.moved, BToA: p.back.moved, Duration: time.Since(p.began)}, cmp.Or(err, p.lost))
}

// lose notes that bytes were thrown away.
func (p *pair) lose(err error) { p.lost = cmp.Or(p.lost, err) }

// lingers has the pair closed when lingerTime has passed.
func (p *pair) lingers() {
	if p.linger == 0 {
		p.linger = p.loop.now() + lingerTime
		p.loop.schedule(p)
	}
}

// checkLater has a blocked flow looked at in a while: whether its source, that may be
// gone, is, as what it had sent may be delivered until then, and whether its destination
// has ceased to read.
func (p *pair) checkLater() {
	if p.check == 0 {
		p.check = p.loop.now() + blockedCheck
		p.loop.schedule(p)
	}
}

// next returns when p is to expire.
func (p *pair) next() time.Duration {
	next := never
	if p.idle > 0 {
		next = p.last + p.idle
	}
	for _, at := range []time.Duration{p.linger, p.check} {
		if at > 0 {
			next = min(next, at)
		}
	}
	return next
}

// expire does what p was scheduled for.
func (p *pair) expire(now time.Duration) {
	if p.check > 0 && p.check <= now {
		p.check = 0
		for _, f := range []*flow{&p.there, &p.back} {
			if !p.over && f.warned && f.pending() {
				f.checkSource()
			}
			// That the peer has ceased to read is no event to who waits for room.
			if !p.over && f.dst.orderly && f.pending() {
				f.run()
			}
		}
	}
	switch {
	case p.over:
		return
	case p.linger > 0 && p.linger <= now:
		p.close(cmp.Or(p.a.broken, p.b.broken))
	case p.idle > 0 && p.last+p.idle <= now:
		p.close(errIdle)
	default:
		p.loop.schedule(p)
	}
}
