// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxLoops bounds the loops of one call of Serve. Each of them keeps a processor busy
// when there is much to carry, and half of them are for whom it is carried.
const maxLoops = 4

// loops carry the connections of one call of Serve that are sockets, many on one
// goroutine each: a goroutine of its own for each direction, in the poller of the
// runtime, costs several times the memory, and a change of goroutines for each byte.
// The zero value is ready; the first pair starts the first loop.
type loops struct {
	mu      sync.Mutex
	all     []*loop
	over    bool
	running sync.WaitGroup
}

// join joins two sockets as pipe does, and reports that it cannot, before it has moved
// anything between them. It takes them over: a copy of their descriptors is carried, as
// the runtime's poller would wake for each byte as well as long as it knows the original,
// and they are closed. done is called on a goroutine that is not to be kept waiting.
func (s *loops) join(a, b HalfCloser, idle time.Duration, m meter, done func(Stats, error)) bool {
	p := newPair(idle, m, done)
	if p.a.adopt(a) && a != b && p.b.adopt(b) {
		p.loop = s.pick()
	}
	p.there.tcp, p.back.tcp = !p.a.orderly, !p.b.orderly
	if p.loop == nil || !p.loop.hand(p) {
		p.a.close()
		p.b.close()
		return false
	}
	_, _ = a.Close(), b.Close()
	return true
}

// pick returns the loop with the fewest pairs, having counted one more.
func (s *loops) pick() (least *loop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	for _, l := range s.all {
		if least == nil || l.pairs.Load() < least.pairs.Load() {
			least = l
		}
	}
	if least == nil || least.pairs.Load() > 0 && len(s.all) < min(runtime.GOMAXPROCS(0)/2, maxLoops) {
		if l, err := newLoop(); err == nil { // else out of descriptors
			s.all = append(s.all, l)
			s.running.Go(l.run)
			least = l
		}
	}
	if least != nil {
		least.pairs.Add(1)
	}
	return least
}

// cut ends all pairs at once, with err, and those that are still to come.
func (s *loops) cut(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, l := range s.all {
		l.cut(err)
	}
}

// stop ends the loops and waits for them. Nobody is to join any more.
func (s *loops) stop() {
	s.cut(errStopped)
	s.mu.Lock()
	for _, l := range s.all {
		l.stop()
	}
	s.all = nil
	s.mu.Unlock()
	s.running.Wait()
}

var errStopped = errors.New("socketbridge: pipe: its loop has ended")

// A loop waits for events of many sockets, and carries what they have, on one
// goroutine. Events are edges: each socket is registered once, and what is behind an
// edge is taken up to EAGAIN before the next is waited for.
type loop struct {
	epoll, wake int
	pairs       atomic.Int64 // handed over, or about to be, and not ended

	began time.Time

	mu       sync.Mutex
	slots    []*pair // where the numbers in events lead; nil: free
	free     []int32
	inbox    []*pair // new ones of which no event tells all
	err      error   // all pairs end with it
	stopping bool

	// The goroutine's own.
	events [128]unix.EpollEvent
	of     [128]*pair // whose events they are
	ready  []*flow    // have had their turn, and have more to do
	turn   []*flow    // those that were
	timers timers
}

const (
	wakeSlot = -1
	readable = unix.EPOLLIN | unix.EPOLLRDHUP
)

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &loop{epoll: epoll, wake: wake, began: time.Now()}
	if err := l.register(wake, unix.EPOLLIN, wakeSlot); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *loop) close() {
	_ = unix.Close(l.epoll)
	_ = unix.Close(l.wake)
}

func (l *loop) register(fd int, events uint32, number int32) error {
	ev := unix.EpollEvent{Events: events | unix.EPOLLET, Fd: number}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &ev))
}

// unregister is for a socket that somebody else has open too: close alone would leave it.
func (l *loop) unregister(fd int) { _ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

// change changes the events of a socket that is registered. Those that it has now come
// again.
func (l *loop) change(fd int, events uint32, number int32) {
	ev := unix.EpollEvent{Events: events | unix.EPOLLET, Fd: number}
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &ev) // allocates nothing, so cannot fail
}

// hand gives the loop a pair that it has been picked for, and reports that it cannot be
// told of its sockets. The first event of a new one comes at once, so the loop need not
// be woken for most.
func (l *loop) hand(p *pair) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.free) - 1; last >= 0 {
		p.slot, l.free = l.free[last], l.free[:last]
	} else {
		p.slot = int32(len(l.slots))
		l.slots = append(l.slots, nil)
	}
	for i, e := range []*end{&p.a, &p.b} {
		if l.register(e.fd, readable, p.slot<<1|int32(i)) != nil { // no memory, or too many watches
			l.unregister(p.a.fd)
			l.free = append(l.free, p.slot)
			l.pairs.Add(-1)
			return false
		}
	}
	l.slots[p.slot] = p
	p.last = l.now()
	if l.err != nil || p.idle > 0 {
		l.inbox = append(l.inbox, p)
		l.rouse()
	}
	return true
}

func (l *loop) cut(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = cmp.Or(l.err, err)
	l.rouse()
}

func (l *loop) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
	l.rouse()
}

// rouse has the loop listen. Nobody reads the eventfd: the edge of a write is all it is
// for, and its count is too large to fill.
func (l *loop) rouse() { _, _ = unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1)) }

// listen takes in what the loop was told, and reports whether it is to go on.
func (l *loop) listen() bool {
	l.mu.Lock()
	inbox, err, stopping := l.inbox, l.err, l.stopping
	l.inbox = nil
	if err != nil {
		inbox = slices.Clone(l.slots)
	}
	l.mu.Unlock()
	for _, p := range inbox {
		switch {
		case p == nil || p.over:
		case err != nil:
			p.close(err)
		default:
			l.schedule(p)
		}
	}
	return !stopping
}

// drop forgets a pair that has ended.
func (l *loop) drop(p *pair) {
	l.mu.Lock()
	l.slots[p.slot] = nil
	l.free = append(l.free, p.slot)
	l.mu.Unlock()
	if p.timer > 0 {
		heap.Remove(&l.timers, p.timer-1)
	}
	l.pairs.Add(-1)
}

// run is the goroutine. An event leads to a slot, not to a descriptor, and says no more
// than that it is worth looking there: should it be an old one, of a socket that somebody
// else has open still, whoever has the slot now finds nothing to do.
func (l *loop) run() {
	defer l.close()
	for {
		events, told := l.events[:l.wait()], false
		l.mu.Lock()
		for i, ev := range events {
			if l.of[i] = nil; ev.Fd == wakeSlot {
				told = true
			} else {
				l.of[i] = l.slots[ev.Fd>>1]
			}
		}
		l.mu.Unlock()
		for i, ev := range events {
			if p := l.of[i]; p != nil && !p.over {
				p.happens(ev.Events, ev.Fd&1 != 0)
			}
		}
		l.turn, l.ready = l.ready, l.turn[:0]
		for _, f := range l.turn {
			f.queued = false
			f.run()
		}
		clear(l.turn)
		for now := l.now(); len(l.timers) > 0 && l.timers[0].due <= now; {
			l.timers[0].expire(now)
		}
		if told && !l.listen() {
			return
		}
	}
}

// wait returns how many events there are.
func (l *loop) wait() int {
	timeout := -1
	switch {
	case len(l.ready) > 0:
		timeout = 0
	case len(l.timers) > 0:
		rest := max(l.timers[0].due-l.now(), 0)
		timeout = int(min((rest+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
	}
	n, err := unix.EpollWait(l.epoll, l.events[:], timeout)
	if err != nil { // EINTR, as there is no other reason
		return 0
	}
	return n
}

func (l *loop) now() time.Duration { return time.Since(l.began) }

// schedule sees to it that p is looked at in time.
func (l *loop) schedule(p *pair) {
	switch p.due = p.next(); {
	case p.timer > 0 && p.due == never:
		heap.Remove(&l.timers, p.timer-1)
	case p.timer > 0:
		heap.Fix(&l.timers, p.timer-1)
	case p.due != never:
		heap.Push(&l.timers, p)
	}
}

const never = time.Duration(math.MaxInt64)

// timers are a heap of the pairs that are due some time. A pair that carries something
// is not moved: it is found not to be idle when it was due, once in an IdleTimeout.
type timers []*pair

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due < t[j].due }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = i+1, j+1
}

func (t *timers) Push(p any) {
	*t = append(*t, p.(*pair))
	p.(*pair).timer = len(*t)
}

func (t *timers) Pop() any {
	last := len(*t) - 1
	p := (*t)[last]
	(*t)[last], *t = nil, (*t)[:last]
	p.timer = 0
	return p
}
