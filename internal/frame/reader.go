// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"io"
)

// readBufferSize holds at least one frame of any length, and about 85 of 1500
// bytes.
const readBufferSize = 2 * (prefixLen + MaxLen)

// A Reader takes frames from a byte stream. It has one user at a time.
type Reader struct {
	src        io.Reader
	buf        []byte
	start, end int
	err        error
}

// NewReader returns a Reader of src. Any stream of bytes is a sequence of
// frames in the plain format: it is what the frames hold that has to be
// distrusted.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, readBufferSize)}
}

// Next returns the next frame, which stays valid until the call after. An
// empty frame is returned as such. It returns [io.EOF] when the stream ended
// between two frames, [io.ErrUnexpectedEOF] when it ended inside one, and
// otherwise the error of the stream; each of them for ever.
func (r *Reader) Next() ([]byte, error) {
	for {
		have := r.buf[r.start:r.end]
		if len(have) >= prefixLen {
			n := int(binary.LittleEndian.Uint16(have))
			if len(have) >= prefixLen+n {
				r.start += prefixLen + n
				return have[prefixLen : prefixLen+n : prefixLen+n], nil
			}
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

// Ready reports whether Next has a frame without reading: what is to be done
// once for a batch of frames is due when it does not.
func (r *Reader) Ready() bool {
	have := r.buf[r.start:r.end]
	return len(have) >= prefixLen && len(have) >= prefixLen+int(binary.LittleEndian.Uint16(have))
}

// fill reads once, after moving the beginning of an incomplete frame to the
// front: there is always room then, because the buffer is longer than a frame.
func (r *Reader) fill() {
	r.end = copy(r.buf, r.buf[r.start:r.end])
	r.start = 0
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	r.err = err
}
