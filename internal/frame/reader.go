// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"errors"
	"io"
)

// Sizes of a Reader's buffer: each holds at least one frame of any length, the
// first about 85 of 1500 bytes. In front of it is room for the header of a frame
// that came without one.
const (
	plainBuffer   = lead + 2*(prefixLen+MaxLen)
	offloadBuffer = lead + 4*(offloadPrefixLen+MaxOffloadLen)
	lead          = HeaderLen - prefixLen
)

// ErrLength is returned for a length that the offload format does not have. The
// stream is out of step, or its other end hostile: nothing more can be read.
var ErrLength = errors.New("frame: a length that no frame has")

// A Reader takes frames from a byte stream. It has one user at a time.
type Reader struct {
	src        io.Reader
	buf        []byte
	start, end int
	at         int // where the frame begins that Next returned last
	offload    bool
	header     Header
	err        error
}

// NewReader returns a Reader of src, in plain format. Any stream of bytes is a
// sequence of frames in that format: it is what the frames hold that has to be
// distrusted.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, plainBuffer), start: lead, end: lead, at: lead}
}

// Next returns the next frame, which stays valid until the call after. An
// empty frame is returned as such. It returns [io.EOF] when the stream ended
// between two frames, [io.ErrUnexpectedEOF] when it ended inside one, [ErrLength],
// and otherwise the error of the stream; each of them for ever.
func (r *Reader) Next() ([]byte, error) {
	for {
		have := r.buf[r.start:r.end]
		if head, n, ok := r.measure(have); ok && n == noFrame {
			return nil, ErrLength
		} else if ok && len(have) >= head+n {
			r.at = r.start + head
			r.start += head + n
			if r.offload {
				r.header = ParseHeader(have[offloadPrefixLen:])
			}
			return have[head : head+n : head+n], nil
		}
		if r.err == io.EOF && len(have) > 0 { //nolint:errorlint // io.Reader returns EOF bare
			return nil, io.ErrUnexpectedEOF
		}
		if r.err != nil {
			return nil, r.err
		}
		r.fill()
	}
}

// noFrame stands for a length that the format does not have: no buffer holds it.
const noFrame = 1 << 30

// measure returns the lengths of the next frame and of what is in front of it, if
// that is there.
func (r *Reader) measure(have []byte) (head, n int, ok bool) {
	if !r.offload {
		if len(have) < prefixLen {
			return 0, 0, false
		}
		return prefixLen, int(binary.LittleEndian.Uint16(have)), true
	}
	if len(have) < offloadPrefixLen {
		return 0, 0, false
	}
	length := binary.LittleEndian.Uint32(have)
	if length < HeaderLen || length > MaxOffloadLen {
		return 0, noFrame, true
	}
	return offloadPrefixLen + HeaderLen, int(length) - HeaderLen, true
}

// Header returns that of the frame which Next returned last: zero in plain format,
// and otherwise to be checked.
func (r *Reader) Header() Header { return r.header }

// WithHeader returns the frame that Next returned last with its [Header] in front,
// as a tap with IFF_VNET_HDR takes it; it is in the same memory.
func (r *Reader) WithHeader() []byte {
	b := r.buf[r.at-HeaderLen : r.start]
	r.header.Put(b)
	return b
}

// Upgrade has the frames after the one that Next returned last be in offload
// format, and makes that one invalid.
func (r *Reader) Upgrade() {
	r.offload = true
	buf := make([]byte, offloadBuffer)
	r.end = lead + copy(buf[lead:], r.buf[r.start:r.end])
	r.buf, r.start, r.at = buf, lead, lead
}

// Ready reports whether Next has a frame without reading: what is to be done
// once for a batch of frames is due when it does not.
func (r *Reader) Ready() bool {
	have := r.buf[r.start:r.end]
	head, n, ok := r.measure(have)
	return ok && len(have) >= head+n
}

// fill reads once, after moving the beginning of an incomplete frame to the
// front: there is always room then, because the buffer is longer than a frame.
func (r *Reader) fill() {
	r.end = lead + copy(r.buf[lead:], r.buf[r.start:r.end])
	r.start = lead
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	r.err = err
}
