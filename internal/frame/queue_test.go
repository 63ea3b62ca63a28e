// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
)

const patience = 20 * time.Second

// drain runs the queue's writer until the test ends.
func drain(t *testing.T, q *frame.Queue, w io.Writer) (ended <-chan error) {
	t.Helper()
	errc := make(chan error, 1)
	done := make(chan struct{})
	go func() { defer close(done); errc <- q.Drain(w) }()
	t.Cleanup(func() {
		q.Close()
		if c, ok := w.(io.Closer); ok {
			_ = c.Close() // or a write under way would never end
		}
		<-done
	})
	return errc
}

func TestQueueKeepsOrderAndContentAcrossChunks(t *testing.T) {
	q := frame.NewQueue(1 << 30)
	var want [][]byte
	for i, n := range []int{1, 60, 65535, 1500, 65534, 65535, 7, 131} { // most straddle chunks of 64 KiB
		f := pattern(i, n)
		want = append(want, f)
		require.True(t, q.Put(f[:n/3], nil, f[n/3:n/2], f[n/2:])) // its parts are one frame
	}
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	drain(t, q, near)
	r := frame.NewReader(far)
	for i := range want {
		got, err := r.Next()
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[i], got), "frame %d", i)
	}
}

func TestPutCopies(t *testing.T) {
	q := frame.NewQueue(1 << 20)
	f := []byte{1, 2, 3}
	require.True(t, q.Put(f))
	f[0] = 9
	var out writer
	drain(t, q, &out)
	require.Eventually(t, func() bool { return bytes.Equal(encode([]byte{1, 2, 3}), out.bytes()) }, patience, time.Millisecond)
}

// writer keeps what is written; it is no net.Conn, so that each buffer is a write.
type writer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *writer) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.buf.Bytes())
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	q := frame.NewQueue(1000)
	for i := range 10 {
		require.True(t, q.Put(make([]byte, 98)), "frame %d", i) // 100 with its length
	}
	require.False(t, q.Put([]byte{1}))
	queued, dropped := q.Len()
	require.Equal(t, 1000, queued)
	require.EqualValues(t, 1, dropped)
}

func TestQueueDropsWhatIsNoFrame(t *testing.T) {
	q := frame.NewQueue(1 << 20)
	require.False(t, q.Put())
	require.False(t, q.Put(nil, []byte{}))
	require.False(t, q.Put(make([]byte, 65535), []byte{1}))
	require.True(t, q.Put(make([]byte, 65535)))
	q.Close()
	require.False(t, q.Put([]byte{1}))
	queued, dropped := q.Len()
	require.Zero(t, queued)
	require.EqualValues(t, 4, dropped)
}

// What is being written still counts, otherwise a writer that is stuck would let
// twice the limit in.
func TestBoundHoldsDuringAWrite(t *testing.T) {
	const limit = 10 * 1002
	q := frame.NewQueue(limit)
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	require.True(t, q.Put(make([]byte, 1000)))
	drain(t, q, near)
	one := make([]byte, 1)
	_, err := io.ReadFull(far, one) // the write has begun, and is stuck
	require.NoError(t, err)
	taken := 1
	for q.Put(make([]byte, 1000)) {
		taken++
	}
	require.Equal(t, 10, taken)
	queued, _ := q.Len()
	require.Equal(t, limit, queued)

	rest := make([]byte, limit-1)
	_, err = io.ReadFull(far, rest)
	require.NoError(t, err)
	require.Eventually(t, func() bool { queued, _ := q.Len(); return queued == 0 }, patience, time.Millisecond)
	require.True(t, q.Put(make([]byte, 1000))) // there is room again
}

// While one write goes on, what comes in goes out with the next, all at once.
func TestDrainWritesInBatches(t *testing.T) {
	writes := make(chan int)
	q := frame.NewQueue(1 << 20)
	require.True(t, q.Put([]byte{1}))
	drain(t, q, writerFunc(func(p []byte) (int, error) { writes <- len(p); return len(p), nil }))
	require.Equal(t, 3, <-writes)
	for range 20 {
		require.True(t, q.Put(make([]byte, 98)))
	}
	total := 0
	for n := 0; total < 2000; n++ {
		require.Less(t, n, 2) // the first may have begun before the last was put
		total += <-writes
	}
	require.Equal(t, 2000, total)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestCloseEndsDrain(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		q := frame.NewQueue(1 << 20)
		ended := drain(t, q, io.Discard)
		q.Close()
		q.Close()
		require.NoError(t, <-ended)
	})
	t.Run("before it began", func(t *testing.T) {
		q := frame.NewQueue(1 << 20)
		require.True(t, q.Put([]byte{1}))
		q.Close()
		require.NoError(t, q.Drain(writerFunc(func([]byte) (int, error) { return 0, errors.New("written") })))
	})
	t.Run("in a write that is stuck, once the connection is closed", func(t *testing.T) {
		q := frame.NewQueue(1 << 20)
		near, far := net.Pipe()
		require.True(t, q.Put(make([]byte, 100)))
		ended := drain(t, q, near)
		_, err := io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
		q.Close()
		require.Empty(t, ended)
		require.NoError(t, near.Close())
		require.ErrorIs(t, <-ended, io.ErrClosedPipe)
		require.NoError(t, far.Close())
	})
	t.Run("in a write that succeeds after all", func(t *testing.T) {
		q := frame.NewQueue(1 << 20)
		near, far := net.Pipe()
		require.True(t, q.Put(make([]byte, 100)))
		ended := drain(t, q, near)
		_, err := io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
		q.Close()
		_, err = io.ReadFull(far, make([]byte, 101))
		require.NoError(t, err)
		require.NoError(t, <-ended)
		queued, _ := q.Len()
		require.Zero(t, queued)
		require.NoError(t, near.Close())
		require.NoError(t, far.Close())
	})
}

func TestDrainReturnsTheErrorOfTheWrite(t *testing.T) {
	broken := errors.New("broken")
	q := frame.NewQueue(1 << 20)
	require.True(t, q.Put([]byte{1}))
	require.Equal(t, broken, q.Drain(writerFunc(func([]byte) (int, error) { return 0, broken })))
	require.False(t, q.Put([]byte{1}))
}

// heldWriter takes what it is given while nobody holds it.
type heldWriter struct{ sync.Mutex }

func (w *heldWriter) Write(b []byte) (int, error) {
	w.Lock()
	defer w.Unlock()
	return len(b), nil
}

// TestBurstsReuseMemory: a transfer is many bursts, between which the queue is empty.
func TestBurstsReuseMemory(t *testing.T) {
	const bursts, frames = 100, 16
	q, w, f := frame.NewQueue(4<<20), &heldWriter{}, pattern(1, 60000)
	drain(t, q, w)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range bursts {
		w.Lock()
		for range frames {
			require.True(t, q.Put(f))
		}
		w.Unlock()
		for n := 1; n > 0; n, _ = q.Len() {
			runtime.Gosched()
		}
	}
	runtime.ReadMemStats(&after)
	// With the race detector a pool loses a quarter of what it is given.
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(bursts*frames*len(f)/2))
}

func TestManyPutters(t *testing.T) {
	const putters, each = 8, 2000
	q := frame.NewQueue(1 << 30)
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	drain(t, q, near)
	var all sync.WaitGroup
	for p := range putters {
		all.Go(func() {
			for i := range each {
				head := binary.BigEndian.AppendUint32([]byte{byte(p)}, uint32(i))
				q.Put(head, pattern(p+i, i%1500))
			}
		})
	}
	next := make([]uint32, putters)
	r := frame.NewReader(far)
	for range putters * each {
		f, err := r.Next()
		require.NoError(t, err)
		p, i := int(f[0]), binary.BigEndian.Uint32(f[1:])
		require.Equal(t, next[p], i, "order of putter %d", p)
		require.True(t, bytes.Equal(pattern(p+int(i), int(i)%1500), f[5:]))
		next[p]++
	}
	all.Wait()
	_, dropped := q.Len()
	require.Zero(t, dropped)
}

func TestQueueUnderPressureDropsAndGoesOn(t *testing.T) {
	q := frame.NewQueue(256 << 10)
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	drain(t, q, near)
	taken := 0
	for i := range 1000 { // nobody reads
		if q.Put(pattern(i, 1500)) {
			taken++
		}
		queued, _ := q.Len()
		require.LessOrEqual(t, queued, 256<<10)
	}
	_, dropped := q.Len()
	require.EqualValues(t, 1000-taken, dropped)
	require.Equal(t, (256<<10)/1502, taken)
	r := frame.NewReader(far)
	for i := range taken { // the first came first, later ones were dropped
		f, err := r.Next()
		require.NoError(t, err)
		require.True(t, bytes.Equal(pattern(i, 1500), f))
	}
}

// FuzzRoundTrip: what is put is what is read, however it is cut.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint16(70), uint16(65535))
	f.Add([]byte{0}, uint16(1), uint16(1))
	f.Fuzz(func(t *testing.T, seeds []byte, a, b uint16) {
		q := frame.NewQueue(1 << 30)
		var want [][]byte
		for i, s := range seeds[:min(len(seeds), 50)] {
			n := int(a)
			if i%2 == 1 {
				n = int(b)
			}
			if f := pattern(int(s), n); q.Put(f[:n/2], f[n/2:]) {
				want = append(want, f)
			}
		}
		if len(want) == 0 {
			return
		}
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); _ = q.Drain(near) }()
		r := frame.NewReader(far)
		for i := range want {
			got, err := r.Next()
			if err != nil || !bytes.Equal(want[i], got) {
				t.Fatalf("frame %d: %v", i, err)
			}
		}
		q.Close()
		_ = near.Close()
		<-done
	})
}
