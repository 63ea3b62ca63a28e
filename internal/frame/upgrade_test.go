// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
)

// encodeOffload is the offload format, written here once more.
func encodeOffload(h frame.Header, f []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(10+len(f)))
	b = append(b, h.Flags, h.GSOType)
	for _, v := range []uint16{h.HdrLen, h.GSOSize, h.CsumStart, h.CsumOffset} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return append(b, f...)
}

func TestPrefix(t *testing.T) {
	h := frame.Header{Flags: 1, GSOType: 1, HdrLen: 0x0203, GSOSize: 0x0405, CsumStart: 0x0607, CsumOffset: 0x0809}
	for _, n := range []int{1, 1514, 65535, 65549} {
		b := make([]byte, frame.MaxPrefixLen)
		require.Equal(t, encodeOffload(h, make([]byte, n))[:14], b[:frame.PutPrefix(b, true, h, n)])
		if n <= frame.MaxLen {
			require.Equal(t, encode(make([]byte, n))[:2], b[:frame.PutPrefix(b, false, h, n)])
		}
	}
}

// contents ends a queue and returns what it held.
func contents(t testing.TB, q *frame.Queue) []byte {
	t.Helper()
	var out writer
	done := make(chan error, 1)
	go func() { done <- q.Drain(&out) }()
	empty := func() bool { queued, _ := q.Len(); return queued == 0 }
	require.Eventually(t, empty, patience, time.Millisecond, "all that was put in was taken out, or accounted wrongly")
	q.Close()
	require.NoError(t, <-done)
	return out.bytes()
}

func TestPlainQueueMakesPlainFrames(t *testing.T) {
	q := frame.NewQueue(1 << 30)
	var want []byte
	for _, size := range []int{48, 1448, 65535} {
		for _, n := range []int{0, 1, size, 2*size + 1, 65400} {
			c := newStream(pattern(n, min(n, 65400)), timestamps...)
			h, f := c.super(t, size)
			require.True(t, q.PutOffload(h, split(f, int(h.HdrLen)+n/2, n/3)...))
			want = append(want, encode(c.segments(t, size)...)...)

			summed := c.part(t, 0, len(c.data), 1<<20)
			h, f = unsummed(summed, 16)
			require.True(t, q.PutSpare(h, split(f, 80)...))
			require.True(t, q.Put(f))
			require.True(t, q.PutOffload(frame.Header{GSOSize: 3}, nil, f))
			want = append(want, encode(summed, f, f)...)
		}
	}
	queued, dropped := q.Len()
	require.Equal(t, len(want), queued)
	require.Zero(t, dropped)
	require.True(t, bytes.Equal(want, contents(t, q)))
}

func TestOffloadQueueSendsFramesAsTheyAre(t *testing.T) {
	q := frame.NewQueue(1 << 30)
	last := pattern(1, 60)
	q.Upgrade(last)
	want := encode(last)
	for n := 1; n <= 65549; n += 9364 {
		f := pattern(n, n)
		h := frame.Header{Flags: 1, GSOType: 1, HdrLen: 2, GSOSize: 3, CsumStart: 4, CsumOffset: 5} // not looked at again
		require.True(t, q.PutOffload(h, f[:n/2], nil, f[n/2:]))
		require.True(t, q.PutSpare(h, f))
		require.True(t, q.Put(f))
		want = slices.Concat(want, encodeOffload(h, f), encodeOffload(h, f), encodeOffload(frame.Header{}, f))
	}
	queued, dropped := q.Len()
	require.Equal(t, len(want), queued)
	require.Zero(t, dropped)
	require.True(t, bytes.Equal(want, contents(t, q)))
}

// A length that the format cannot tell would put the stream out of step.
func TestTooLongIsRefused(t *testing.T) {
	whole, f := newStream(pattern(1, 65495)).super(t, 65535) // one segment of 65,549 bytes
	fits := whole
	fits.GSOSize = 65535 - 54
	for name, c := range map[string]struct {
		h              frame.Header
		f              []byte
		plain, offload bool
	}{
		"longest plain":           {frame.Header{}, f[:65535], true, true},
		"longer":                  {frame.Header{}, f[:65536], false, true},
		"longest":                 {frame.Header{}, f, false, true},
		"too long":                {frame.Header{}, append(slices.Clone(f), 1), false, false},
		"with a checksum":         {frame.Header{Flags: 1, CsumStart: 34, CsumOffset: 16}, f, false, true},
		"in one segment":          {whole, f, false, true},
		"in a segment that fits":  {fits, f, true, true},
		"in segments":             {frame.Header{Flags: 1, GSOType: 1, GSOSize: 48, CsumStart: 34, CsumOffset: 16}, f, true, true},
		"of which none is needed": {frame.Header{GSOSize: 48}, f, false, true},
	} {
		q := frame.NewQueue(1 << 20)
		require.Equal(t, c.plain, q.PutOffload(c.h, c.f), "%s, plain", name)
		q.Upgrade([]byte{1})
		require.Equal(t, c.offload, q.PutOffload(c.h, c.f[:100], c.f[100:]), "%s, offload", name)
		r := frame.NewReader(bytes.NewReader(contents(t, q)))
		plain, err := r.Next()
		for n := 0; err == nil && !bytes.Equal(plain, []byte{1}); plain, err = r.Next() {
			n++
			require.True(t, c.plain, name)
			require.LessOrEqual(t, n, 1+len(f)/48, name)
		}
		require.NoError(t, err, name)
		r.Upgrade()
		rest, err := readAll(r)
		require.Equal(t, io.EOF, err, name)
		require.Equal(t, map[bool]int{true: 1}[c.offload], len(rest), name)
	}
}

func TestAllOfASuperFrameOrNothing(t *testing.T) {
	c := newStream(pattern(1, 10000), timestamps...)
	h, f := c.super(t, 1448)
	small, last := pattern(2, 98), []byte{7}
	for _, offload := range []bool{false, true} {
		before, whole := encode(small), encode(c.segments(t, 1448)...)
		if offload {
			before, whole = append(encode(last), encodeOffload(frame.Header{}, small)...), encodeOffload(h, f)
		}
		exact := len(before) + len(whole)
		for name, put := range map[string]func(limit int) (*frame.Queue, func(frame.Header, ...[]byte) bool){
			"all": func(n int) (*frame.Queue, func(frame.Header, ...[]byte) bool) {
				q := frame.NewQueue(n)
				return q, q.PutOffload
			},
			"spare": func(n int) (*frame.Queue, func(frame.Header, ...[]byte) bool) {
				q := frame.NewQueue(2*n + 1)
				return q, q.PutSpare
			},
		} {
			for _, limit := range []int{exact, exact - 1} {
				q, put := put(limit)
				if offload {
					q.Upgrade(last)
				}
				require.True(t, q.Put(small))
				taken := put(h, split(f, 100, 3)...)
				require.Equal(t, limit == exact, taken, "%s, offload %v", name, offload)
				_, dropped := q.Len()
				want := slices.Clone(before)
				if taken {
					require.Zero(t, dropped)
					want = append(want, whole...)
				} else {
					require.EqualValues(t, 1, dropped, "a super-frame is one frame")
				}
				require.True(t, bytes.Equal(want, contents(t, q)), name)
			}
		}
	}
}

func TestUpgradeOfAQueue(t *testing.T) {
	last, f := pattern(1, 60), pattern(2, 98)
	t.Run("when it is full", func(t *testing.T) {
		q := frame.NewQueue(200)
		require.True(t, q.Put(f))
		require.True(t, q.Put(f))
		q.Upgrade(last)
		require.False(t, q.Put(f))
		queued, dropped := q.Len()
		require.Equal(t, 262, queued)
		require.EqualValues(t, 1, dropped)
		require.Equal(t, encode(f, f, last), contents(t, q))
	})
	t.Run("twice", func(t *testing.T) {
		q := frame.NewQueue(1000)
		q.Upgrade(last)
		q.Upgrade(f)
		require.True(t, q.Put(f))
		require.Equal(t, slices.Concat(encode(last), encodeOffload(frame.Header{}, f)), contents(t, q))
	})
	t.Run("after Close", func(t *testing.T) {
		q := frame.NewQueue(1000)
		q.Close()
		q.Upgrade(last)
		require.False(t, q.Put(f))
		queued, dropped := q.Len()
		require.Zero(t, queued)
		require.EqualValues(t, 1, dropped)
		require.NoError(t, q.Drain(writerFunc(func([]byte) (int, error) { return 0, io.ErrShortWrite })))
	})
	t.Run("wakes the writer", func(t *testing.T) {
		q := frame.NewQueue(1000)
		near, far := net.Pipe()
		drain(t, q, near)
		got := make([]byte, 3)
		require.True(t, q.Put([]byte{1}))
		_, err := io.ReadFull(far, got)
		require.NoError(t, err)
		require.Eventually(t, func() bool { queued, _ := q.Len(); return queued == 0 }, patience, time.Millisecond)
		q.Upgrade([]byte{2})
		_, err = io.ReadFull(far, got)
		require.NoError(t, err)
		require.Equal(t, []byte{1, 0, 2}, got)
	})
}

// However many put frames at the time, the stream is plain up to the last frame and
// in offload format from there, and each gets its frames through whole and in order.
func TestUpgradeUnderPutters(t *testing.T) {
	const putters, each, size, payload = 6, 300, 1000, 2900
	q := frame.NewQueue(1 << 30)
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	drain(t, q, near)
	marker := pattern(9, 60)
	half := make(chan struct{}, putters)
	var all sync.WaitGroup
	for p := range putters {
		c := newStream(pattern(p, payload))
		c.tcp.SrcPort, c.tcp.Seq = 1000, 0
		h, template := c.super(t, size)
		all.Go(func() {
			f := slices.Clone(template)
			binary.BigEndian.PutUint16(f[34:], uint16(p))
			for i := range each {
				if i == each/2 {
					half <- struct{}{}
				}
				binary.BigEndian.PutUint32(f[38:], uint32(i*payload))
				q.PutOffload(h, f[:54+i], f[54+i:])
			}
		})
	}
	all.Go(func() { <-half; q.Upgrade(marker); q.Upgrade(marker) })

	r := frame.NewReader(far)
	next, plain, upgraded := make([]int, putters), 0, false
	for done := 0; done < putters*each || !upgraded; { // the change may come last
		f, err := r.Next()
		require.NoError(t, err)
		if bytes.Equal(f, marker) {
			require.False(t, upgraded, "the frame comes once")
			upgraded = true
			for _, n := range next {
				require.Zero(t, n%payload, "half a super-frame before the change")
			}
			r.Upgrade()
			continue
		}
		p, seq := int(binary.BigEndian.Uint16(f[34:])), int(binary.BigEndian.Uint32(f[38:]))
		require.Equal(t, next[p], seq, "order of putter %d", p)
		n := len(f) - 54
		if upgraded {
			require.Equal(t, payload, n)
			require.EqualValues(t, frame.GSOTCPv4, r.Header().GSOType)
		} else {
			require.Equal(t, min(size, payload-seq%payload), n)
			require.Zero(t, r.Header())
			plain++
		}
		require.True(t, bytes.Equal(pattern(p, payload)[seq%payload:][:n], f[54:]))
		if next[p] += n; next[p]%payload == 0 {
			done++
		}
	}
	all.Wait()
	require.GreaterOrEqual(t, plain, each/2)
	_, dropped := q.Len()
	require.Zero(t, dropped)
	require.Eventually(t, func() bool { queued, _ := q.Len(); return queued == 0 }, patience, time.Millisecond)
}
