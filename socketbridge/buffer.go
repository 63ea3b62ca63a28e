// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import "sync"

// Buffers: what comes at a time, last, says which one to take.
const (
	smallBuffer = 8 << 10
	largeBuffer = 32 << 10
)

// Buffers of both sizes, shared by all pipes; the garbage collector empties them.
var (
	smallBuffers = sync.Pool{New: func() any { return new(make([]byte, smallBuffer)) }}
	largeBuffers = sync.Pool{New: func() any { return new(make([]byte, largeBuffer)) }}
)

// A buffer holds what is under way.
type buffer struct {
	buf  *[]byte // pooled; nil while nothing is under way
	data []byte  // the part of it that has yet to be accepted
	bulk bool    // the last read filled what it got: more is likely to follow at once
}

// take returns a buffer, large if more than a little is expected.
func (b *buffer) take() []byte {
	if b.bulk {
		b.buf = largeBuffers.Get().(*[]byte)
	} else {
		b.buf = smallBuffers.Get().(*[]byte)
	}
	return *b.buf
}

// release gives it back.
func (b *buffer) release() {
	switch {
	case b.buf == nil:
		return
	case len(*b.buf) == largeBuffer:
		largeBuffers.Put(b.buf)
	default:
		smallBuffers.Put(b.buf)
	}
	b.buf, b.data = nil, nil
}
