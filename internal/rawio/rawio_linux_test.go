// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package rawio_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"weak"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

// An end is one of a connection or a pipe.
type end interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	SyscallConn() (syscall.RawConn, error)
}

// A buffersWriter is what NewWriter returns of what it knows.
type buffersWriter interface {
	io.Writer
	WriteBuffers(buffers [][]byte) (int64, error)
}

// A kind is one that is known: what is written to w is read from r.
type kind struct {
	open   func(t testing.TB) (w, r end)
	closed error                                 // of what is used after Close
	broken []error                               // what a write may say when r is closed
	reset  func(t testing.TB, r end, w *vantage) // w's next Read finds the connection reset; nil: there is no such thing
}

// A vantage is an end, and its reader and writer.
type vantage struct {
	end
	rd io.Reader
	wr buffersWriter
}

func (k kind) join(t testing.TB) (w, r *vantage) {
	t.Helper()
	a, b := k.open(t)
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return see(t, a), see(t, b)
}

func see(t testing.TB, e end) *vantage {
	t.Helper()
	rd := rawio.NewReader(e)
	require.NotSame(t, e, rd)
	wr, ok := rawio.NewWriter(e).(buffersWriter)
	require.True(t, ok, "%T is not known", e)
	return &vantage{e, rd, wr}
}

func kinds(t testing.TB) map[string]kind {
	ks := map[string]kind{
		"TCP": {
			open:   func(t testing.TB) (end, end) { return tcp(t) },
			closed: net.ErrClosed,
			broken: []error{unix.EPIPE, unix.ECONNRESET},
			reset: func(t testing.TB, r end, _ *vantage) {
				require.NoError(t, r.(*net.TCPConn).SetLinger(0))
				require.NoError(t, r.Close())
			},
		},
		"unix": {
			open:   func(t testing.TB) (end, end) { return unixPair(t) },
			closed: net.ErrClosed,
			broken: []error{unix.EPIPE},
			reset: func(t testing.TB, r end, w *vantage) {
				_, err := w.wr.Write([]byte("that nobody reads"))
				require.NoError(t, err)
				require.NoError(t, r.Close())
			},
		},
		"file": {
			open: func(t testing.TB) (end, end) {
				r, w, err := os.Pipe()
				require.NoError(t, err)
				return w, r
			},
			closed: os.ErrClosed,
			broken: []error{unix.EPIPE},
		},
	}
	// Where this kernel has a loopback for it. Others meet it between two machines, in
	// internal/vmtest.
	if ln, err := vsock.ListenContextID(vsock.Local, 0, nil); err == nil {
		require.NoError(t, ln.Close())
		ks["vsock"] = kind{
			open:   func(t testing.TB) (end, end) { return vsockPair(t) },
			closed: net.ErrClosed,
			broken: []error{unix.EPIPE, unix.ECONNRESET},
		}
	}
	return ks
}

func unixPair(t testing.TB) (near, far *net.UnixConn) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	a, b := join(t, ln)
	return a.(*net.UnixConn), b.(*net.UnixConn)
}

func vsockPair(t testing.TB) (near, far *vsock.Conn) {
	t.Helper()
	ln, err := vsock.ListenContextID(vsock.Local, 0, nil)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	near, err = vsock.Dial(vsock.Local, ln.Addr().(*vsock.Addr).Port, nil)
	require.NoError(t, err)
	c, err := ln.Accept()
	require.NoError(t, err)
	return near, c.(*vsock.Conn)
}

func each(t *testing.T, test func(t *testing.T, k kind)) {
	for name, k := range kinds(t) {
		t.Run(name, func(t *testing.T) { test(t, k) })
	}
}

// pattern is n bytes that tell their place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// cut cuts b into pieces of many lengths, with empty ones among them.
func cut(b []byte) (pieces [][]byte) {
	for i := 0; len(b) > 0; i++ {
		n := min(len(b), i*37%6000)
		pieces = append(pieces, b[:n:n])
		b = b[n:]
	}
	return append(pieces, nil)
}

// slowly reads n bytes, a few at a time, as who has something else to do in between.
func slowly(t testing.TB, r io.Reader, n int) []byte {
	got, buf := make([]byte, 0, n), make([]byte, 7919)
	for len(got) < n {
		m, err := r.Read(buf[:min(len(buf), n-len(got))])
		require.NoError(t, err)
		require.NotZero(t, m)
		got = append(got, buf[:m]...)
		runtime.Gosched()
	}
	return got
}

type result struct {
	n   int64
	err error
}

// during runs f elsewhere, and returns what comes of it.
func during(f func() (int64, error)) <-chan result {
	c := make(chan result, 1)
	go func() {
		n, err := f()
		c <- result{n, err}
	}()
	return c
}

// More buffers than one call takes, and more bytes than the kernel: each call moves a
// part, which ends anywhere.
func TestBytesArriveInOrder(t *testing.T) {
	data := pattern(9 << 20)
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		pieces := cut(data)
		for name, write := range map[string]func() (int64, error){
			"Write": func() (int64, error) {
				n, err := w.wr.Write(data)
				return int64(n), err
			},
			"WriteBuffers": func() (int64, error) { return w.wr.WriteBuffers(pieces) },
			"one buffer after the other": func() (n int64, err error) {
				for _, b := range pieces {
					m, err := w.wr.Write(b)
					n += int64(m)
					if err != nil {
						return n, err
					}
				}
				return n, nil
			},
		} {
			t.Run(name, func(t *testing.T) {
				require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
				written := during(write)
				require.True(t, bytes.Equal(data, slowly(t, r.rd, len(data))))
				require.Equal(t, result{int64(len(data)), nil}, await(t, written, "the writer"))
				require.Equal(t, cut(data), pieces, "they are the caller's")
			})
		}
	})
}

func TestManySmallBuffersAreOneWrite(t *testing.T) {
	data := pattern(3000)
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		var one [][]byte
		for i := range data { // three times as many as one system call takes
			one = append(one, data[i:i+1], nil)
		}
		n, err := w.wr.WriteBuffers(one)
		require.NoError(t, err)
		require.EqualValues(t, len(data), n)
		require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
		require.Equal(t, data, slowly(t, r.rd, len(data)))
	})
}

func TestEmptyReadsAndWrites(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		n, err := r.rd.Read(nil) // does not wait for anything
		require.NoError(t, err)
		require.Zero(t, n)
		n, err = w.wr.Write(nil)
		require.NoError(t, err)
		require.Zero(t, n)
		for _, none := range [][][]byte{nil, {}, {nil, {}}} {
			n, err := w.wr.WriteBuffers(none)
			require.NoError(t, err)
			require.Zero(t, n)
		}
		_, err = w.wr.Write([]byte{7})
		require.NoError(t, err)
		require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
		require.Equal(t, []byte{7}, slowly(t, r.rd, 1))
	})
}

func TestTheEndIsEOFAndNothingElse(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		_, err := w.wr.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
		require.Equal(t, []byte("x"), slowly(t, r.rd, 1))
		for range 2 {
			n, err := r.rd.Read(make([]byte, 10))
			require.Zero(t, n)
			require.Equal(t, io.EOF, err)
		}
	})
}

func TestAResetIsToldByName(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		if k.reset == nil {
			return
		}
		w, r := k.join(t)
		k.reset(t, r.end, w)
		require.NoError(t, w.SetReadDeadline(time.Now().Add(patience)))
		n, err := w.rd.Read(make([]byte, 10))
		require.Zero(t, n)
		require.ErrorIs(t, err, unix.ECONNRESET)
	})
}

func TestWritingToNobodyIsToldByName(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		require.NoError(t, r.Close())
		require.NoError(t, w.SetWriteDeadline(time.Now().Add(patience)))
		var err error
		for err == nil { // TCP is told only after it has asked
			_, err = w.wr.WriteBuffers([][]byte{make([]byte, 1000), make([]byte, 1000)})
		}
		require.True(t, slices.ContainsFunc(k.broken, func(want error) bool { return errors.Is(err, want) }), "%v", err)
	})
}

func TestADeadlineEndsARead(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		_, r := k.join(t)
		for name, by := range map[string]func() time.Time{
			"that has passed": func() time.Time { return time.Unix(1, 0) },
			"that passes":     func() time.Time { return time.Now().Add(20 * time.Millisecond) },
		} {
			require.NoError(t, r.SetReadDeadline(by()), name)
			n, err := r.rd.Read(make([]byte, 10))
			require.Zero(t, n, name)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, name)
			require.NotErrorIs(t, err, k.closed, name)
		}
	})
}

// It says how much went: not a byte more or less has.
func TestADeadlineEndsAWrite(t *testing.T) {
	data := pattern(16 << 20)
	each(t, func(t *testing.T, k kind) {
		for name, write := range map[string]func(w *vantage) (int64, error){
			"Write":        func(w *vantage) (int64, error) { n, err := w.wr.Write(data); return int64(n), err },
			"WriteBuffers": func(w *vantage) (int64, error) { return w.wr.WriteBuffers(cut(data)) },
		} {
			t.Run(name, func(t *testing.T) {
				w, r := k.join(t)
				require.NoError(t, w.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
				n, err := write(w)
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				require.NotErrorIs(t, err, k.closed)
				require.Less(t, n, int64(len(data)))
				m, err := w.wr.Write(data[n:])
				require.ErrorIs(t, err, os.ErrDeadlineExceeded, "it has passed for good")
				require.Zero(t, m)

				require.NoError(t, w.SetWriteDeadline(time.Time{}))
				rest := during(func() (int64, error) { return w.wr.WriteBuffers(cut(data[n:])) })
				require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
				require.True(t, bytes.Equal(data, slowly(t, r.rd, len(data))))
				require.Equal(t, result{int64(len(data)) - n, nil}, await(t, rest, "the rest"))
			})
		}
	})
}

func TestCloseEndsAReadUnderWay(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		begun := make(chan struct{})
		end := during(func() (int64, error) {
			_, err := r.rd.Read(make([]byte, 1))
			close(begun)
			if err != nil {
				return 0, err
			}
			n, err := r.rd.Read(make([]byte, 1))
			return int64(n), err
		})
		_, err := w.wr.Write([]byte("x"))
		require.NoError(t, err)
		await(t, begun, "the reader")
		require.NoError(t, r.Close())
		got := await(t, end, "Read")
		require.Zero(t, got.n)
		require.ErrorIs(t, got.err, k.closed)
	})
}

func TestCloseEndsAWriteUnderWay(t *testing.T) {
	data := pattern(16 << 20)
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		end := during(func() (int64, error) { return w.wr.WriteBuffers(cut(data)) })
		require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
		require.Equal(t, data[:1], slowly(t, r.rd, 1)) // it has begun, and the kernel has no room for all of it
		require.NoError(t, w.Close())
		got := await(t, end, "WriteBuffers")
		require.Less(t, got.n, int64(len(data)))
		require.ErrorIs(t, got.err, k.closed)
	})
}

func TestUseAfterClose(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		require.NoError(t, w.Close())
		require.NoError(t, r.Close())
		n, err := r.rd.Read(make([]byte, 1))
		require.Zero(t, n)
		require.ErrorIs(t, err, k.closed)
		n, err = w.wr.Write([]byte("x"))
		require.Zero(t, n)
		require.ErrorIs(t, err, k.closed)
		many, err := w.wr.WriteBuffers([][]byte{{1}, {2}})
		require.Zero(t, many)
		require.ErrorIs(t, err, k.closed)
		_, err = rawio.NewReader(r.end).Read(make([]byte, 1))
		require.ErrorIs(t, err, k.closed, "a reader made afterwards")
		_, err = rawio.NewWriter(w.end).Write([]byte("x"))
		require.ErrorIs(t, err, k.closed, "a writer made afterwards")
	})
}

// Somebody who has asked a connection for its file may have made it one that blocks.
// A call that waited in the kernel then would take its processor with it, which no
// garbage collection starts without.
func TestASocketThatBlocksHoldsUpNobody(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		if k.closed == os.ErrClosed { //nolint:errorlint // a file
			return
		}
		w, r := k.join(t)
		for _, v := range []*vantage{w, r} {
			raw, err := v.SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) }))
			require.NoError(t, err)
		}
		soon := time.Now().Add(20 * time.Millisecond)
		require.NoError(t, r.SetReadDeadline(soon))
		read := during(func() (int64, error) { n, err := r.rd.Read(make([]byte, 1)); return int64(n), err })
		select {
		case got := <-read:
			require.ErrorIs(t, got.err, os.ErrDeadlineExceeded)
		case <-time.After(patience):
			_, _ = w.Write([]byte("x")) // lets it go
			require.Fail(t, "Read waits in the kernel")
		}
		require.NoError(t, w.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
		written := during(func() (int64, error) { return w.wr.WriteBuffers([][]byte{make([]byte, 16<<20), {1}}) })
		select {
		case got := <-written:
			require.ErrorIs(t, got.err, os.ErrDeadlineExceeded)
		case <-time.After(patience):
			_ = r.Close() // lets it go
			require.Fail(t, "Write waits in the kernel")
		}
	})
}

// Neither holds on to what it was given once the call is over.
func TestNothingIsKept(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		w, r := k.join(t)
		kept := func() (kept []weak.Pointer[[1000]byte]) {
			a, b, c := new([1000]byte), new([1000]byte), new([1000]byte)
			_, err := w.wr.WriteBuffers([][]byte{a[:], b[:500]})
			require.NoError(t, err)
			require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
			_, err = r.rd.Read(c[:])
			require.NoError(t, err)
			return []weak.Pointer[[1000]byte]{weak.Make(a), weak.Make(b), weak.Make(c)}
		}()
		for i, p := range kept {
			require.Eventually(t, func() bool { runtime.GC(); return p.Value() == nil }, patience, time.Millisecond, "%d", i)
		}
		runtime.KeepAlive(w)
		runtime.KeepAlive(r)
	})
}

func TestReadv(t *testing.T) {
	var p [2]int
	require.NoError(t, unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC))
	defer func() { _ = unix.Close(p[0]) }()
	head, rest := make([]byte, 4), make([]byte, 8)
	_, err := rawio.Readv(p[0], head, rest)
	require.ErrorIs(t, err, unix.EAGAIN)
	for name, c := range map[string]struct{ send, head, rest string }{
		"less than head":    {"ab", "ab\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00"},
		"head":              {"abcd", "abcd", "\x00\x00\x00\x00\x00\x00\x00\x00"},
		"some of the rest":  {"abcdefg", "abcd", "efg\x00\x00\x00\x00\x00"},
		"all there is room": {"abcdefghijkl", "abcd", "efghijkl"},
	} {
		clear(head)
		clear(rest)
		_, err := unix.Write(p[1], []byte(c.send))
		require.NoError(t, err, name)
		n, err := rawio.Readv(p[0], head, rest)
		require.NoError(t, err, name)
		require.Equal(t, len(c.send), n, name)
		require.Equal(t, c.head, string(head), name)
		require.Equal(t, c.rest, string(rest), name)
	}
	_, err = unix.Write(p[1], []byte("more"))
	require.NoError(t, err)
	n, err := rawio.Readv(p[0], nil, rest[:3])
	require.NoError(t, err)
	require.Equal(t, "mor", string(rest[:n]))
	n, err = rawio.Readv(p[0], head[:1], nil)
	require.NoError(t, err)
	require.Equal(t, "e", string(head[:n]))
	require.NoError(t, unix.Close(p[1]))
	n, err = rawio.Readv(p[0], head, rest)
	require.NoError(t, err)
	require.Zero(t, n, "the end")
	_, err = rawio.Readv(-1, head, rest)
	require.ErrorIs(t, err, unix.EBADF)
}

func TestWidenGivesAUnixSocketMoreRoom(t *testing.T) {
	conn, _ := unixPair(t)
	before := sendRoom(t, conn)
	rawio.Widen(conn)
	require.Greater(t, sendRoom(t, conn), before)

	other, _ := tcp(t)
	before = sendRoom(t, other)
	rawio.Widen(other)
	require.Equal(t, before, sendRoom(t, other), "it would no longer grow on its own")
}

// Somebody may have given it more than that, which only root can here.
func TestWidenTakesNothingAway(t *testing.T) {
	house.NeedRoot(t)
	conn, _ := unixPair(t)
	raw, err := conn.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20) }))
	require.NoError(t, err)
	require.Equal(t, 8<<20, sendRoom(t, conn))
	rawio.Widen(conn)
	require.Equal(t, 8<<20, sendRoom(t, conn))
}

// One that keeps the bounds of messages is not written to as a stream is.
func TestAUnixSocketOfMessagesIsLeftAlone(t *testing.T) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "s")})
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.Same(t, conn, rawio.NewReader(conn))
	require.Same(t, conn, rawio.NewWriter(conn))
	before := sendRoom(t, conn)
	rawio.Widen(conn)
	require.Equal(t, before, sendRoom(t, conn))
}

func sendRoom(t testing.TB, c syscall.Conn) (n int) {
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	var failed error
	require.NoError(t, raw.Control(func(fd uintptr) { n, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF) }))
	require.NoError(t, failed)
	return n
}

// await receives, or fails the test when nothing comes.
func await[T any](t testing.TB, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		require.FailNow(t, "still waiting: "+what)
	}
	return v
}
