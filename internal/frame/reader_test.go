// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// encode is the wire format, written here once more so that reader and queue do
// not only agree with each other.
func encode(frames ...[]byte) []byte {
	var b []byte
	for _, f := range frames {
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(f))), f...)
	}
	return b
}

// pattern returns n bytes that tell where they are from.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed + i*31 + i>>8)
	}
	return b
}

// chunks is a stream that arrives in pieces of the lengths; the last goes on.
type chunks struct {
	data    []byte
	lengths []int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := len(c.data)
	if len(c.lengths) > 0 {
		n, c.lengths = min(n, max(1, c.lengths[0])), c.lengths[1:]
	}
	n = copy(p, c.data[:n])
	c.data = c.data[n:]
	return n, nil
}

func readAll(r *frame.Reader) (frames [][]byte, err error) {
	for {
		f, err := r.Next()
		if err != nil {
			return frames, err
		}
		frames = append(frames, append([]byte{}, f...))
	}
}

func TestReaderAtEverySplit(t *testing.T) {
	want := [][]byte{pattern(1, 1), {}, pattern(2, 60), pattern(3, 300), pattern(4, 14)}
	wire := encode(want...)
	for at := range len(wire) + 1 {
		got, err := readAll(frame.NewReader(&chunks{wire, []int{at}}))
		require.Equal(t, io.EOF, err)
		require.Equal(t, want, got, "split at %d", at)
	}
	for name, r := range map[string]io.Reader{
		"byte by byte":   iotest.OneByteReader(bytes.NewReader(wire)),
		"halves":         iotest.HalfReader(bytes.NewReader(wire)),
		"EOF with bytes": iotest.DataErrReader(bytes.NewReader(wire)),
	} {
		got, err := readAll(frame.NewReader(r))
		require.Equal(t, io.EOF, err, name)
		require.Equal(t, want, got, name)
	}
}

func TestReaderTakesFramesOfAnyLength(t *testing.T) {
	var want [][]byte
	for i, n := range []int{0, 1, 13, 14, 1514, 65535, 0, 65534, 65535, 65535, 2, 40000, 40000, 40000} {
		want = append(want, pattern(i, n))
	}
	got, err := readAll(frame.NewReader(bytes.NewReader(encode(want...))))
	require.Equal(t, io.EOF, err)
	require.Equal(t, want, got)
}

func TestReaderOfATruncatedStream(t *testing.T) {
	first, second := pattern(1, 5), pattern(2, 6)
	wire := encode(first, second)
	for n := range len(wire) + 1 {
		for name, src := range map[string]io.Reader{
			"EOF alone":      bytes.NewReader(wire[:n]),
			"EOF with bytes": iotest.DataErrReader(bytes.NewReader(wire[:n])),
		} {
			got, err := readAll(frame.NewReader(src))
			want := io.ErrUnexpectedEOF
			if n == 0 || n == 7 || n == len(wire) {
				want = io.EOF
			}
			require.Equal(t, want, err, "%d bytes, %s", n, name)
			require.Len(t, got, map[bool]int{n >= 7: 1}[true]+map[bool]int{n == len(wire): 1}[true])
		}
	}
}

func TestReaderErrorsStay(t *testing.T) {
	broken := errors.New("broken")
	r := frame.NewReader(io.MultiReader(bytes.NewReader(encode(pattern(1, 3))), iotest.ErrReader(broken)))
	_, err := r.Next()
	require.NoError(t, err)
	for range 3 {
		_, err = r.Next()
		require.Equal(t, broken, err)
	}
	r = frame.NewReader(bytes.NewReader([]byte{9, 0, 1}))
	for range 3 {
		_, err = r.Next()
		require.Equal(t, io.ErrUnexpectedEOF, err)
	}
}

func TestReady(t *testing.T) {
	wire := encode(pattern(1, 4), nil, pattern(2, 300))
	r := frame.NewReader(&chunks{wire, []int{6 + 2 + 2 + 299, 1}}) // the third lacks a byte
	require.False(t, r.Ready())
	for i, ready := range []bool{true, false, false} {
		_, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, ready, r.Ready(), "after frame %d", i)
	}
	_, err := r.Next()
	require.Equal(t, io.EOF, err)
	require.False(t, r.Ready())
}

// Many frames cost one read: it is what the package is for.
func TestReaderReadsInBatches(t *testing.T) {
	reads := 0
	src := bytes.NewReader(encode(func() (l [][]byte) {
		for i := range 80 {
			l = append(l, pattern(i, 1500))
		}
		return l
	}()...))
	got, err := readAll(frame.NewReader(readerFunc(func(p []byte) (int, error) { reads++; return src.Read(p) })))
	require.Equal(t, io.EOF, err)
	require.Len(t, got, 80)
	require.Equal(t, 2, reads) // one, and one for EOF
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// FuzzReader: any bytes in any pieces are the same frames as those bytes in one.
func FuzzReader(f *testing.F) {
	f.Add(encode(pattern(1, 60), nil, pattern(2, 14)), []byte{1, 2, 3})
	f.Add([]byte{0xff, 0xff, 1}, []byte{1})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, wire, splits []byte) {
		var want [][]byte
		rest := wire
		for len(rest) >= 2 && len(rest)-2 >= int(binary.LittleEndian.Uint16(rest)) {
			n := int(binary.LittleEndian.Uint16(rest))
			want, rest = append(want, rest[2:2+n]), rest[2+n:]
		}
		lengths := make([]int, 0, len(splits))
		for _, s := range splits {
			lengths = append(lengths, int(s))
		}
		got, err := readAll(frame.NewReader(&chunks{wire, lengths}))
		if wantErr := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[len(rest) == 0]; err != wantErr { //nolint:errorlint // bare, as documented
			t.Fatalf("%v, want %v", err, wantErr)
		}
		if len(got) != len(want) {
			t.Fatalf("%d frames, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d: %x, want %x", i, got[i], want[i])
			}
		}
	})
}
