// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import "github.com/rancher-sandbox/guestnet/internal/frame"

// tracing returns what is told of each frame just now, or nil.
func (s *session) tracing() func(out bool, frame []byte) {
	if f := s.g.trace.Load(); f != nil {
		return *f
	}
	return s.trace
}

// tracer tells of the frames of one direction. A capture knows nothing of offload:
// what one frame stands for is cut up for it.
type tracer struct {
	cutter frame.Segmenter
	whole  []byte
}

func (t *tracer) frame(trace func(out bool, frame []byte), out bool, h frame.Header, f []byte) {
	switch {
	case trace == nil:
	case plain(h):
		trace(out, f)
	default:
		t.cutter.Segment(h, [][]byte{f}, func(pieces [][]byte) {
			t.whole = t.whole[:0]
			for _, p := range pieces {
				t.whole = append(t.whole, p...)
			}
			trace(out, t.whole)
		})
	}
}
