// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
)

// A sent queue is one whose writer has always written what was put last.
type sent struct {
	q    *frame.Queue
	done chan struct{}
	left int
}

func (s *sent) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left == 0 {
		s.done <- struct{}{}
	}
	return len(p), nil
}

// newSent returns what puts frames into a queue of that format and waits until all
// is written, and how much that is: a super-frame of 64 KiB, or as many frames of
// 1514 bytes.
func newSent(t testing.TB, offload, super bool) (put func(), size int) {
	s := &sent{q: frame.NewQueue(4 << 20), done: make(chan struct{})}
	c := newStream(pattern(1, 45*1448), timestamps...)
	h, f := c.super(t, 1448)
	frames := c.segments(t, 1448)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.q.Drain(s) }()
	t.Cleanup(func() { s.q.Close(); <-ended })
	prefix := 2
	if offload {
		prefix, s.left = 14, 3
		s.q.Upgrade([]byte{1})
		<-s.done
	}
	cost := 45 * (prefix + 1514)
	if super && offload {
		cost = prefix + len(f)
	}
	return func() {
		s.left = cost
		if super {
			s.q.PutOffload(h, f[:66], f[66:20000], f[20000:])
		} else {
			for _, f := range frames {
				s.q.Put(f[:66], f[66:])
			}
		}
		<-s.done
	}, 45 * 1448
}

var formats = map[string][2]bool{
	"super-frame in plain format":   {false, true},
	"super-frame in offload format": {true, true},
	"frames in plain format":        {false, false},
	"frames in offload format":      {true, false},
}

func BenchmarkSend(b *testing.B) {
	for name, c := range formats {
		b.Run(name, func(b *testing.B) {
			put, n := newSent(b, c[0], c[1])
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				put()
			}
		})
	}
}

// Neither a frame nor a write costs an allocation, once the queue has what it needs.
func TestSendingAllocatesNothing(t *testing.T) {
	for name, c := range formats {
		put, _ := newSent(t, c[0], c[1])
		require.Zero(t, testing.AllocsPerRun(200, put), name)
	}
}
