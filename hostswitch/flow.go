// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/fair"
)

// What waits for a flow's socket at most: in datagrams, and in bytes, with what it
// takes to tell them apart. Every flow has littleRoom; for more, which comes in two
// sizes, there is a bound on what the flows of one account hold, and all flows.
const (
	flowQueue  = 2048
	littleRoom = 8 << 10
	someRoom   = 64 << 10
	muchRoom   = 256 << 10
	shareRoom  = tableRoom / 2
	tableRoom  = 32 << 20
)

// A flowKey tells one conversation of datagrams from another.
type flowKey struct {
	proto    uint8
	forward  bool // dst is where a forward listens, and not where a guest sends to
	src, dst netip.AddrPort
}

// flowConn is a socket that a flow talks through.
type flowConn interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	SetReadDeadline(time.Time) error
	Close() error
}

// flowEnd is the other side of a flow. dial, reply and failed are called from
// goroutines of the flow.
type flowEnd interface {
	account() account
	idle() time.Duration
	dial(context.Context) (flowConn, error)
	reply(datagrams [][]byte)
	failed(error) // a socket error that the sender may want to know
}

// A flowTable holds the conversations of datagrams. It is bounded, in all and for
// each account: when there are too many, of who has most the one that was silent for
// longest gives way.
type flowTable struct {
	ctx     context.Context
	max     int
	share   int // of one account
	running sync.WaitGroup
	batches *batches
	some    sync.Pool     // of *datagrams with someRoom
	much    sync.Pool     // of those with muchRoom
	dropped atomic.Uint64 // datagrams that no socket took

	mu      sync.Mutex
	flows   map[flowKey]*flow
	recent  fair.Table[account, *flow]
	held    map[account]int // bytes of someRoom and muchRoom
	heldAll int
}

type flow struct {
	key     flowKey
	end     flowEnd
	waiting *datagrams    // for the socket; guarded by the table's lock, as is small
	small   *datagrams    // with littleRoom; nil while it waits or is written
	filled  chan struct{} // told when something waits
	cancel  context.CancelFunc
	place   *fair.Entry[account, *flow]
	used    atomic.Int64 // Unix ns of the last datagram either way
}

func newFlowTable(ctx context.Context, limit, share int) *flowTable {
	return &flowTable{
		ctx: ctx, max: limit, share: share, batches: newBatches(),
		flows: make(map[flowKey]*flow), held: make(map[account]int),
	}
}

// send puts a copy of a datagram into its flow, which open describes if there is
// none yet; without open it reports false then. It never blocks; what a flow's queue
// cannot hold is dropped, and so is what open has no end for.
func (t *flowTable) send(key flowKey, payload []byte, now time.Time, open func() flowEnd) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.flows[key]
	switch {
	case f != nil:
		if f.used.Swap(now.UnixNano()) != now.UnixNano() { // once for those that come together
			t.recent.Touch(f.place)
		}
	case open == nil, t.ctx.Err() != nil:
		return false
	default:
		end := open()
		if end == nil {
			t.dropped.Add(1)
			return true
		}
		of := end.account()
		t.makeRoomLocked(of)
		f = &flow{key: key, end: end, small: &datagrams{room: littleRoom}, filled: make(chan struct{}, 1)}
		f.used.Store(now.UnixNano()) // before run looks at it
		var ctx context.Context
		ctx, f.cancel = context.WithCancel(t.ctx)
		f.place = t.recent.Add(of, f, 1)
		t.flows[key] = f
		t.running.Go(func() { t.run(ctx, f) })
	}
	// With the lock held, so that no flow is found idle between the two.
	if !t.putLocked(f, payload) {
		t.dropped.Add(1)
	}
	return true
}

func (t *flowTable) putLocked(f *flow, payload []byte) bool {
	if f.waiting == nil {
		if f.waiting, f.small = f.small, nil; f.waiting == nil {
			f.waiting = &datagrams{room: littleRoom}
		}
	}
	need := f.waiting.size() + 8 + len(payload)
	if len(f.waiting.ends) == flowQueue || need > f.waiting.room && !t.widenLocked(f, need) {
		return false
	}
	if f.waiting.add(payload); len(f.waiting.ends) == 1 {
		select {
		case f.filled <- struct{}{}:
		default:
		}
	}
	return true
}

// widenLocked moves what waits in a flow to where there is room, if that is to be had.
func (t *flowTable) widenLocked(f *flow, need int) bool {
	w, of, room := f.waiting, f.place.Owner, someRoom
	if need > someRoom {
		room = muchRoom
	}
	if need > room || t.held[of]+room > shareRoom || t.heldAll+room > tableRoom {
		return false
	}
	t.held[of] += room
	t.heldAll += room
	d, ok := t.spare(room).Get().(*datagrams)
	if !ok {
		d = &datagrams{bytes: make([]byte, 0, room), room: room}
	}
	d.bytes, d.ends = append(d.bytes, w.bytes...), append(d.ends, w.ends...)
	f.waiting = d
	t.recycleLocked(f, w)
	return true
}

func (t *flowTable) spare(room int) *sync.Pool {
	if room == someRoom {
		return &t.some
	}
	return &t.much
}

// recycleLocked keeps d for later, emptied.
func (t *flowTable) recycleLocked(f *flow, d *datagrams) {
	d.bytes, d.ends = d.bytes[:0], d.ends[:0]
	if d.room == littleRoom {
		f.small = d
		return
	}
	t.spare(d.room).Put(d)
	t.heldAll -= d.room
	of := f.place.Owner
	if t.held[of] -= d.room; t.held[of] == 0 {
		delete(t.held, of)
	}
}

// next returns what waits in a flow, which hands back what it got before, or nil.
func (t *flowTable) next(f *flow, done *datagrams) (d *datagrams) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if done != nil {
		t.recycleLocked(f, done)
	}
	d, f.waiting = f.waiting, nil
	return d
}

// makeRoomLocked removes a flow if there are too many: of that account, or of all.
func (t *flowTable) makeRoomLocked(of account) {
	switch {
	case t.recent.WeightOf(of) >= t.share:
		t.removeLocked(t.recent.Oldest(of).Value)
	case len(t.flows) >= t.max:
		t.removeLocked(t.recent.Excess().Value)
	}
}

// removeLocked takes a flow out of the table, so that the next datagram opens a
// new one, and ends it.
func (t *flowTable) removeLocked(f *flow) {
	if t.flows[f.key] == f {
		delete(t.flows, f.key)
		t.recent.Remove(f.place)
	}
	f.cancel()
}

// touch notes that a flow is alive: a stream that only comes in is.
func (t *flowTable) touch(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.used.Store(time.Now().UnixNano())
	if t.flows[f.key] == f {
		t.recent.Touch(f.place)
	}
}

// removeIdle is remove, unless a datagram has come meanwhile.
func (t *flowTable) removeIdle(f *flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(time.Unix(0, f.used.Load())) < f.end.idle() {
		return false
	}
	t.removeLocked(f)
	return true
}

func (t *flowTable) remove(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(f)
	if f.waiting != nil {
		t.dropped.Add(uint64(len(f.waiting.ends)))
		t.recycleLocked(f, f.waiting)
	}
}

// run owns the socket of a flow: one goroutine writes, one reads.
func (t *flowTable) run(ctx context.Context, f *flow) {
	defer t.remove(f)
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := f.end.dial(dialCtx)
	cancel()
	if err != nil {
		f.end.failed(err)
		return
	}
	batches := t.batches.conn(conn)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()                               //nolint:errcheck // a datagram socket
	defer onDone(ctx, func() { _ = conn.Close() })() // lets a write go that blocks: DialOutbound may return anything
	wg.Go(func() {
		t.readReplies(ctx, f, batches)
		f.cancel()
	})
	failed := func(err error) {
		t.dropped.Add(1)
		f.end.failed(err)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.filled:
		}
		for d := t.next(f, nil); d != nil; d = t.next(f, d) {
			batches.send(d, failed)
		}
	}
}

// readReplies reads until the flow was idle for long enough or its socket is
// closed.
func (t *flowTable) readReplies(ctx context.Context, f *flow, conn batchConn) {
	take := func(d [][]byte) {
		t.touch(f)
		f.end.reply(d)
	}
	idle := f.end.idle()
	for due := true; ctx.Err() == nil; {
		if due {
			last := time.Unix(0, f.used.Load())
			if time.Since(last) >= idle && t.removeIdle(f) {
				return
			}
			if err := conn.SetReadDeadline(last.Add(idle)); err != nil {
				return
			}
		}
		err := conn.receive(take)
		switch due = errors.Is(err, os.ErrDeadlineExceeded); {
		case err == nil, due:
		case isRefused(err), errors.Is(err, errReset): // ICMP said so, the latter on Windows; the peer may be up a moment later
			f.end.failed(errRefused)
		case noWay(err):
			f.end.failed(err)
		case errors.Is(err, errMessageSize): // Windows: longer than buf, cannot be
		default:
			return
		}
	}
}

// each calls f for every flow.
func (t *flowTable) each(f func(*flow)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, fl := range t.flows {
		f(fl)
	}
}

// closeWhere ends the flows that match says, and does not wait for them.
func (t *flowTable) closeWhere(match func(flowKey) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, f := range t.flows {
		if match(key) {
			t.removeLocked(f)
		}
	}
}

func (t *flowTable) wait() { t.running.Wait() }
