// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
)

var anyHeader = frame.Header{Flags: 1, GSOType: 0x81, HdrLen: 0x102, GSOSize: 0x304, CsumStart: 0x506, CsumOffset: 0x708}

// A got is what a Reader returned.
type got struct {
	h frame.Header
	f []byte
}

// readUpgraded reads plain frames up to the upgrade'th, and then in offload format.
func readUpgraded(r *frame.Reader, upgrade int) (all []got, err error) {
	for {
		if len(all) == upgrade {
			r.Upgrade()
		}
		ready := r.Ready()
		f, err := r.Next()
		if err != nil {
			if ready {
				return all, errors.New("ready for an error")
			}
			return all, err
		}
		all = append(all, got{r.Header(), slices.Clone(f)})
		if len(all)%2 == 0 {
			continue // what follows is the same whether it is asked for or not
		}
		for range 2 {
			if b := r.WithHeader(); !bytes.Equal(b[frame.HeaderLen:], f) || len(f) > 0 && &b[frame.HeaderLen] != &f[0] {
				return all, errors.New("another frame behind the header")
			} else if frame.ParseHeader(b) != r.Header() {
				return all, errors.New("another header")
			}
		}
	}
}

func TestUpgradeOfAReaderAtEverySplit(t *testing.T) {
	want := []got{
		{f: pattern(1, 20)}, {f: pattern(2, 60)},
		{anyHeader, pattern(3, 1)}, {frame.Header{}, []byte{}}, {frame.Header{GSOSize: 9}, pattern(4, 300)}, {anyHeader, pattern(5, 14)},
	}
	for i := range want {
		want[i].f = slices.Clone(want[i].f)
	}
	wire := encode(want[0].f, want[1].f)
	for _, g := range want[2:] {
		wire = append(wire, encodeOffload(g.h, g.f)...)
	}
	for at := range len(wire) + 1 {
		all, err := readUpgraded(frame.NewReader(&chunks{wire, []int{at}}), 2)
		require.Equal(t, io.EOF, err, "split at %d", at)
		require.Equal(t, want, all, "split at %d", at)
		all, err = readUpgraded(frame.NewReader(&chunks{wire, []int{at / 2, at - at/2, 1, 2, 1}}), 2)
		require.Equal(t, io.EOF, err, "split at %d", at)
		require.Equal(t, want, all, "split at %d", at)
	}
	for name, r := range map[string]io.Reader{
		"byte by byte":   iotest.OneByteReader(bytes.NewReader(wire)),
		"halves":         iotest.HalfReader(bytes.NewReader(wire)),
		"EOF with bytes": iotest.DataErrReader(bytes.NewReader(wire)),
	} {
		all, err := readUpgraded(frame.NewReader(r), 2)
		require.Equal(t, io.EOF, err, name)
		require.Equal(t, want, all, name)
	}
}

// The plain buffer is full of what comes after it, and more than once it over.
func TestUpgradeWithAFullBuffer(t *testing.T) {
	want := []got{{f: pattern(1, 60)}}
	wire := encode(want[0].f)
	for i, n := range []int{65549, 65549, 0, 65549, 65548, 1, 131, 65549, 65549, 65549, 65549, 65549, 40000} {
		h := anyHeader
		h.GSOSize = uint16(i)
		want = append(want, got{h, pattern(i, n)})
		wire = append(wire, encodeOffload(h, pattern(i, n))...)
	}
	all, err := readUpgraded(frame.NewReader(bytes.NewReader(wire)), 1)
	require.Equal(t, io.EOF, err)
	require.Equal(t, want, all)
	all, err = readUpgraded(frame.NewReader(iotest.HalfReader(bytes.NewReader(wire))), 1)
	require.Equal(t, io.EOF, err)
	require.Equal(t, want, all)
}

func TestUpgradeBeforeTheFirstFrame(t *testing.T) {
	r := frame.NewReader(bytes.NewReader(encodeOffload(anyHeader, pattern(1, 7))))
	require.Zero(t, r.Header())
	all, err := readUpgraded(r, 0)
	require.Equal(t, io.EOF, err)
	require.Equal(t, []got{{anyHeader, pattern(1, 7)}}, all)
}

func TestLengthThatNoFrameHas(t *testing.T) {
	for _, n := range []uint32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65560, 65561, 1 << 17, 1 << 24, 1<<31 - 1, 0x80000000, 0x80000009, 0xffff0000, 0xfffffff6, 0xffffffff} {
		good := encodeOffload(anyHeader, pattern(1, 30))
		bad := binary.LittleEndian.AppendUint32(nil, n)
		for name, rest := range map[string][]byte{"alone": nil, "with a little": pattern(2, 20), "with a lot": pattern(3, 200000)} {
			reads := 0
			src := bytes.NewReader(slices.Concat(good, bad, rest))
			r := frame.NewReader(readerFunc(func(p []byte) (int, error) { reads++; return src.Read(p) }))
			r.Upgrade()
			f, err := r.Next()
			require.NoError(t, err)
			require.Equal(t, pattern(1, 30), f)
			require.False(t, r.Ready(), "length %d %s", n, name)
			for range 3 {
				f, err = r.Next()
				require.Equal(t, frame.ErrLength, err, "length %d %s", n, name)
				require.Nil(t, f)
				require.False(t, r.Ready())
			}
			require.Equal(t, 1, reads, "nothing is read of a stream that is out of step")
		}
	}
	for _, n := range []int{0, 1, 65548, 65549} { // and these it has
		r := frame.NewReader(bytes.NewReader(encodeOffload(anyHeader, pattern(1, n))))
		r.Upgrade()
		f, err := r.Next()
		require.NoError(t, err)
		require.True(t, bytes.Equal(pattern(1, n), f))
	}
}

func TestOffloadReaderOfATruncatedStream(t *testing.T) {
	plain, first, second := encode(pattern(1, 5)), encodeOffload(anyHeader, pattern(2, 6)), encodeOffload(anyHeader, pattern(3, 70))
	wire := slices.Concat(plain, first, second)
	ends := []int{len(plain), len(plain) + len(first), len(wire)}
	broken := errors.New("broken")
	for n := len(plain); n <= len(wire); n++ {
		whole := 0
		for _, end := range ends {
			if n >= end {
				whole++
			}
		}
		want := io.ErrUnexpectedEOF
		if slices.Contains(ends, n) {
			want = io.EOF
		}
		for name, c := range map[string]struct {
			src  io.Reader
			want error
		}{
			"EOF alone":      {bytes.NewReader(wire[:n]), want},
			"EOF with bytes": {iotest.DataErrReader(bytes.NewReader(wire[:n])), want},
			"broken":         {io.MultiReader(bytes.NewReader(wire[:n]), iotest.ErrReader(broken)), broken},
		} {
			r := frame.NewReader(c.src)
			all, err := readUpgraded(r, 1)
			require.Equal(t, c.want, err, "%d bytes, %s", n, name)
			require.Len(t, all, whole)
			_, err = r.Next()
			require.Equal(t, c.want, err, "%d bytes, %s, again", n, name)
		}
	}
}

func TestReadyInOffloadFormat(t *testing.T) {
	first, second := encodeOffload(anyHeader, pattern(1, 4)), encodeOffload(anyHeader, nil)
	wire := slices.Concat(first, second, encodeOffload(anyHeader, pattern(2, 300)))
	for missing := 1; missing <= 314; missing++ {
		r := frame.NewReader(&chunks{wire, []int{len(wire) - missing, 1}})
		r.Upgrade()
		require.False(t, r.Ready())
		for i, ready := range []bool{true, false, false} {
			_, err := r.Next()
			require.NoError(t, err)
			require.Equal(t, ready, r.Ready(), "after frame %d, %d bytes missing", i, missing)
		}
		_, err := r.Next()
		require.Equal(t, io.EOF, err)
		require.False(t, r.Ready())
	}
}

// The next frame may be there already when the format changes: what was ready in one
// format says nothing of the other.
func TestReadyAfterUpgrade(t *testing.T) {
	r := frame.NewReader(bytes.NewReader(append(encode(pattern(1, 4)), encodeOffload(anyHeader, pattern(2, 4))...)))
	_, err := r.Next()
	require.NoError(t, err)
	r.Upgrade()
	require.True(t, r.Ready())
	r = frame.NewReader(bytes.NewReader(append(encode(pattern(1, 4)), encode(pattern(2, 9))...))) // 9 is no length
	_, err = r.Next()
	require.NoError(t, err)
	require.True(t, r.Ready())
	r.Upgrade()
	require.False(t, r.Ready())
}
