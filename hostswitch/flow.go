// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"container/list"
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// What waits for a flow's socket at most, in datagrams and about in bytes.
const (
	flowQueue = 128
	flowBytes = 128 << 10
)

// A flowKey tells one conversation of datagrams from another.
type flowKey struct {
	proto    uint8
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
	idle() time.Duration
	dial(context.Context) (flowConn, error)
	reply(datagram []byte)
	failed(error) // a socket error that the sender may want to know
}

// A flowTable holds the conversations of datagrams. It is bounded, in all and for
// each source: when there are too many, the one that was silent for longest gives
// way.
type flowTable struct {
	ctx     context.Context
	max     int
	share   int // of one source
	running sync.WaitGroup

	mu     sync.Mutex
	flows  map[flowKey]*flow
	by     map[netip.Addr]int
	recent list.List // of *flow, least recently used first
}

type flow struct {
	key     flowKey
	end     flowEnd
	out     chan []byte
	queued  atomic.Int64 // bytes in out
	cancel  context.CancelFunc
	element *list.Element
	used    atomic.Int64 // Unix ns of the last datagram either way
}

func newFlowTable(ctx context.Context, limit, share int) *flowTable {
	return &flowTable{ctx: ctx, max: limit, share: share, flows: make(map[flowKey]*flow), by: make(map[netip.Addr]int)}
}

// send puts a copy of a datagram into its flow, which open describes if there is
// none yet. It never blocks; what a flow's queue cannot hold is dropped.
func (t *flowTable) send(key flowKey, payload []byte, open func() flowEnd) {
	t.mu.Lock()
	f := t.flows[key]
	if f == nil {
		if t.ctx.Err() != nil {
			t.mu.Unlock()
			return
		}
		t.makeRoomLocked(key.src.Addr())
		f = &flow{key: key, end: open(), out: make(chan []byte, flowQueue)}
		f.used.Store(time.Now().UnixNano()) // before run looks at it
		var ctx context.Context
		ctx, f.cancel = context.WithCancel(t.ctx)
		f.element = t.recent.PushBack(f)
		t.flows[key] = f
		t.by[key.src.Addr()]++
		t.running.Go(func() { t.run(ctx, f) })
	} else {
		t.recent.MoveToBack(f.element)
		f.used.Store(time.Now().UnixNano())
	}
	// With the lock held, so that no flow is found idle between the two.
	if f.queued.Load() < flowBytes {
		select {
		case f.out <- append([]byte(nil), payload...):
			f.queued.Add(int64(len(payload)))
		default:
		}
	}
	t.mu.Unlock()
}

// makeRoomLocked removes a flow if there are too many: of that source, or of all.
func (t *flowTable) makeRoomLocked(src netip.Addr) {
	if t.by[src] >= t.share {
		for e := t.recent.Front(); e != nil; e = e.Next() {
			if f := e.Value.(*flow); f.key.src.Addr() == src {
				t.removeLocked(f)
				return
			}
		}
	}
	if len(t.flows) >= t.max {
		t.removeLocked(t.recent.Front().Value.(*flow))
	}
}

// removeLocked takes a flow out of the table, so that the next datagram opens a
// new one, and ends it.
func (t *flowTable) removeLocked(f *flow) {
	if t.flows[f.key] == f {
		delete(t.flows, f.key)
		t.recent.Remove(f.element)
		if src := f.key.src.Addr(); t.by[src] == 1 {
			delete(t.by, src)
		} else {
			t.by[src]--
		}
	}
	f.cancel()
}

// touch notes that a flow is alive: a stream that only comes in is.
func (t *flowTable) touch(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.used.Store(time.Now().UnixNano())
	if t.flows[f.key] == f {
		t.recent.MoveToBack(f.element)
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
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()                               //nolint:errcheck // a datagram socket
	defer onDone(ctx, func() { _ = conn.Close() })() // lets a write go that blocks: DialOutbound may return anything
	wg.Go(func() {
		t.readReplies(ctx, f, conn)
		f.cancel()
	})
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-f.out:
			f.queued.Add(-int64(len(b)))
			if _, err := conn.Write(b); err != nil {
				f.end.failed(err)
			}
		}
	}
}

// readReplies reads until the flow was idle for long enough or its socket is
// closed.
func (t *flowTable) readReplies(ctx context.Context, f *flow, conn flowConn) {
	idle := f.end.idle()
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		last := time.Unix(0, f.used.Load())
		if time.Since(last) >= idle && t.removeIdle(f) {
			return
		}
		if err := conn.SetReadDeadline(last.Add(idle)); err != nil {
			return
		}
		n, err := conn.Read(buf)
		switch {
		case err == nil:
			t.touch(f)
			f.end.reply(buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
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
