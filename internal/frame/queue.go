// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"io"
	"net"
	"sync"
	"time"
)

// A chunk is one buffer of a queue: large enough for a write to be worth its system
// call.
type chunk [64 << 10]byte

// What may wait before [Queue.Full] says so: what was taken lately in a few
// milliseconds, so that it is a matter of those also where frames go slowly, but so
// much at least, and three eighths of the limit at most.
const (
	fullAfter = 4 * time.Millisecond
	leastFull = 256 << 10
)

// A Queue holds frames, already encoded, until its one writer has sent them. It
// is bounded in bytes: a frame that does not fit is dropped, as a network card
// would, so that whoever puts frames in never waits for whoever takes them out.
type Queue struct {
	limit int
	spare sync.Pool // of *chunk: a burst takes many that an idle queue should not keep

	mu      sync.Mutex
	filled  sync.Cond
	chunks  [][]byte // encoded frames; a frame may straddle two chunks
	bytes   int      // in chunks and in the write under way
	waiting bool
	closed  bool
	offload bool // the format of what is put from now on
	dropped uint64
	cutter  Segmenter
	full    int           // how many bytes are many
	empties chan struct{} // not nil while somebody waits for there to be fewer
}

// NewQueue returns a queue that holds at most limit bytes.
func NewQueue(limit int) *Queue {
	q := &Queue{limit: limit, full: 3 * limit / 8}
	q.filled.L = &q.mu
	return q
}

// Put appends the frame whose bytes are those of parts, one after the other; it
// copies them. It reports whether the frame was taken: one that is empty,
// longer than the format carries or beyond the limit, or put after Close, is
// dropped.
func (q *Queue) Put(parts ...[]byte) bool { return q.put(q.limit, Header{}, parts) }

// PutOffload is Put for a frame with a header, which has passed Check. A queue in
// plain format takes the frames instead that it stands for, all of them or none.
// The first of parts holds all protocol headers.
func (q *Queue) PutOffload(h Header, parts ...[]byte) bool { return q.put(q.limit, h, parts) }

// PutSpare is PutOffload for what can be spared: it takes a frame only while the
// queue is less than half full, which those who ask Full do not make it.
func (q *Queue) PutSpare(h Header, parts ...[]byte) bool { return q.put(q.limit/2, h, parts) }

// Upgrade puts a last frame in plain format; whatever is put later is in offload
// format. It has room beyond the limit.
func (q *Queue) Upgrade(last []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.offload {
		return
	}
	q.appendFrameLocked(Header{}, [][]byte{last})
	q.offload = true
	q.wakeLocked()
}

func (q *Queue) put(limit int, h Header, parts [][]byte) bool {
	n := total(parts)
	q.mu.Lock()
	defer q.mu.Unlock()
	if n == 0 || q.closed || !q.roomLocked(limit, h, parts, n) {
		q.dropped++
		return false
	}
	if q.offload {
		q.appendFrameLocked(h, parts)
	} else {
		q.cutter.Segment(h, parts, func(pieces [][]byte) { q.appendFrameLocked(Header{}, pieces) })
	}
	q.wakeLocked()
	return true
}

// roomLocked reports whether a frame can be carried and has room.
func (q *Queue) roomLocked(limit int, h Header, parts [][]byte, n int) bool {
	if q.offload {
		return HeaderLen+n <= MaxOffloadLen && q.bytes+offloadPrefixLen+HeaderLen+n <= limit
	}
	if h.GSOType != GSONone {
		c, ok := h.segments(parts[0], n)
		return ok && c.longest() <= MaxLen && q.bytes+c.payload+(prefixLen+c.headers)*c.count() <= limit
	}
	return n <= MaxLen && q.bytes+prefixLen+n <= limit
}

func (q *Queue) appendFrameLocked(h Header, parts [][]byte) {
	var prefix [MaxPrefixLen]byte
	q.appendLocked(prefix[:PutPrefix(prefix[:], q.offload, h, total(parts))])
	for _, p := range parts {
		q.appendLocked(p)
	}
}

func (q *Queue) wakeLocked() {
	if q.waiting {
		q.waiting = false
		q.filled.Signal()
	}
}

func (q *Queue) appendLocked(p []byte) {
	q.bytes += len(p)
	for len(p) > 0 {
		last := len(q.chunks) - 1
		if last < 0 || len(q.chunks[last]) == cap(q.chunks[last]) {
			q.chunks = append(q.chunks, q.chunk())
			last++
		}
		c := q.chunks[last]
		n := copy(c[len(c):cap(c)], p)
		q.chunks[last] = c[:len(c)+n]
		p = p[n:]
	}
}

func (q *Queue) chunk() []byte {
	c, ok := q.spare.Get().(*chunk)
	if !ok {
		c = new(chunk)
	}
	return c[:0]
}

// Full returns nil while little waits, and otherwise a channel that is closed when
// it is less again, or the queue is. It is for those who can wait, and would have to
// repeat what is dropped: they ask before they put more in.
func (q *Queue) Full() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes <= q.full { // as a closed one is
		return nil
	}
	if q.empties == nil {
		q.empties = make(chan struct{})
	}
	return q.empties
}

func (q *Queue) emptyLocked() {
	if q.empties != nil {
		close(q.empties)
		q.empties = nil
	}
}

// tookLocked learns from a write how much is much. A short one says little: it may have
// fitted a socket's buffer.
func (q *Queue) tookLocked(n int, in time.Duration) {
	if n < leastFull {
		return
	}
	most := 3 * q.limit / 8
	now := int(min(float64(most), float64(n)*float64(fullAfter)/float64(in)))
	q.full = max((q.full+now)/2, min(leastFull, most))
}

// Drain writes the frames to w as they come, as many with one write as there
// are, until the queue is closed (nil; what was still in it is dropped) or a
// write fails (its error). It is called once, by the queue's writer; a write
// under way ends only when w lets it. A w that has a WriteBuffers for many buffers
// is given them with that.
func (q *Queue) Drain(w io.Writer) error {
	var sent, room [][]byte
	var batch net.Buffers
	many, _ := w.(interface {
		WriteBuffers(buffers [][]byte) (int64, error)
	})
	var took time.Duration
	for {
		q.mu.Lock()
		if !q.closed { // Close has settled the account
			n := 0
			for _, c := range sent {
				n += len(c)
			}
			q.bytes -= n
			q.tookLocked(n, took)
			if q.bytes <= q.full/2 {
				q.emptyLocked()
			}
		}
		clear(sent)
		for len(q.chunks) == 0 && !q.closed {
			q.waiting = true
			q.filled.Wait()
		}
		if q.closed {
			q.mu.Unlock()
			return nil
		}
		sent, q.chunks = q.chunks, sent[:0]
		q.mu.Unlock()

		var err error
		start := time.Now()
		if many != nil {
			_, err = many.WriteBuffers(sent)
		} else {
			// WriteTo consumes its receiver, and sent is needed for the account.
			room = append(room[:0], sent...)
			batch = room
			_, err = batch.WriteTo(w)
		}
		took = time.Since(start)
		for _, c := range sent {
			q.spare.Put((*chunk)(c[:cap(c)]))
		}
		if err != nil {
			q.Close()
			return err
		}
	}
}

// Close ends Drain and drops what is queued. Frames put later are dropped.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.chunks, q.bytes = nil, 0
	q.emptyLocked()
	q.filled.Broadcast()
}

// Len returns how many bytes are queued or being written, and how many frames
// were dropped so far.
func (q *Queue) Len() (bytes int, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.dropped
}
