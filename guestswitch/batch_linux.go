// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

const (
	// longestFrame is what a tap hands over at most: a super-frame of 64 KiB.
	longestFrame = frame.MaxOffloadLen - frame.HeaderLen
	// batchSize is the buffer for frames on their way to the host: when the
	// longest no longer fits it is sent.
	batchSize = 64<<10 + frame.MaxPrefixLen + longestFrame
	// drainReads bounds the time away from the poller, where Close is noticed.
	drainReads = 512
)

// A batch is frames, encoded for the wire where the tap put them.
type batch struct {
	buf     []byte
	n       int
	offload bool
	header  [frame.HeaderLen]byte
	prefix  int // how long it is in this format
	traced  []tracedFrame
}

// A tracedFrame is one in a batch that is to be told of when that is sent.
type tracedFrame struct {
	h frame.Header
	f []byte
}

func newBatch() *batch {
	b := &batch{buf: make([]byte, batchSize)}
	b.setFormat(false)
	return b
}

// setFormat is that of the frames read from now on.
func (b *batch) setFormat(offload bool) {
	b.offload, b.prefix = offload, frame.PutPrefix(b.buf, offload, frame.Header{}, 0)
}

func (b *batch) full() bool { return len(b.buf)-b.n < b.prefix+longestFrame }

// read returns the next frame of the tap, whose header is on its own.
func (b *batch) read(fd int) (frame.Header, []byte, error) {
	room := b.buf[b.n+b.prefix:]
	n, err := rawio.Readv(fd, b.header[:], room[:longestFrame])
	if err != nil {
		return frame.Header{}, nil, err
	}
	return frame.ParseHeader(b.header[:]), room[:max(0, n-frame.HeaderLen)], nil
}

// take adds the frame that was read last.
func (b *batch) take(h frame.Header, f []byte) {
	b.n += frame.PutPrefix(b.buf[b.n:], b.offload, h, len(f)) + len(f)
}

// fits reports whether the format can carry the frame as it is.
func (b *batch) fits(h frame.Header, f []byte) bool {
	if b.offload {
		return h.Check(f, len(f)) == nil
	}
	return plain(h) && len(f) <= frame.MaxLen
}

// plain reports whether a frame is what its bytes say.
func plain(h frame.Header) bool { return h.Flags == 0 && h.GSOType == frame.GSONone }

// encodePlain returns a frame as it stands on the wire in plain format.
func encodePlain(f []byte) []byte {
	b := make([]byte, frame.MaxPrefixLen, frame.MaxPrefixLen+len(f))
	return append(b[:frame.PutPrefix(b, false, frame.Header{}, len(f))], f...)
}
