// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// noise returns bytes that are the same in every run.
func noise(size int) []byte { return allNoise()[:size:size] }

var allNoise = sync.OnceValue(func() []byte {
	buf := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(buf)
	return buf
})

// everyPairing runs test for each kind of connection with each.
func everyPairing(t *testing.T, test func(t *testing.T, left, right string)) {
	for _, left := range paired {
		for _, right := range paired {
			t.Run(left.name+"-"+right.name, func(t *testing.T) { test(t, left.name, right.name) })
		}
	}
}

// TestPipeCarriesHalfClose: a request, CloseWrite, and a reply that starts only when
// the request was read to its end; from either side (FAILURES 25).
func TestPipeCarriesHalfClose(t *testing.T) {
	everyPairing(t, func(t *testing.T, left, right string) {
		for _, size := range []int{0, 1, 8 << 10, 8<<10 + 1, 400_000} {
			for _, turned := range []bool{false, true} {
				j := join(t, left, right)
				asks, answers := j.client, j.server
				if turned {
					asks, answers = answers, asks
				}
				request, reply := noise(size), noise(2*size+1)
				sent := send(asks, request)
				got, err := io.ReadAll(answers)
				require.NoError(t, err)
				require.Equal(t, sha256.Sum256(request), sha256.Sum256(got))
				require.NoError(t, <-sent)

				sent = send(answers, reply)
				got, err = io.ReadAll(asks)
				require.NoError(t, err)
				require.Equal(t, sha256.Sum256(reply), sha256.Sum256(got))
				require.NoError(t, <-sent)

				r := j.result(t)
				require.NoError(t, r.err)
				if turned {
					r.AToB, r.BToA = r.BToA, r.AToB
				}
				require.EqualValues(t, len(request), r.AToB)
				require.EqualValues(t, len(reply), r.BToA)
			}
		}
	})
}

// TestPipeCarriesBothWaysAtOnce: neither direction waits for the other.
func TestPipeCarriesBothWaysAtOnce(t *testing.T) {
	everyPairing(t, func(t *testing.T, left, right string) {
		j := join(t, left, right)
		for range 100 { // one byte at a time
			_, err := j.client.Write([]byte{1})
			require.NoError(t, err)
			_, err = io.ReadFull(j.server, make([]byte, 1))
			require.NoError(t, err)
			_, err = j.server.Write([]byte{2})
			require.NoError(t, err)
			_, err = io.ReadFull(j.client, make([]byte, 1))
			require.NoError(t, err)
		}
		there, back := noise(1<<20), noise(700_000)
		sentThere, sentBack := send(j.client, there), send(j.server, back)
		hashed := make(chan [32]byte, 1)
		go func() {
			got, _ := io.ReadAll(j.client)
			hashed <- sha256.Sum256(got)
		}()
		got, err := io.ReadAll(j.server)
		require.NoError(t, err)
		require.Equal(t, sha256.Sum256(there), sha256.Sum256(got))
		require.Equal(t, sha256.Sum256(back), <-hashed)
		require.NoError(t, <-sentThere)
		require.NoError(t, <-sentBack)
		r := j.result(t)
		require.NoError(t, r.err)
		require.EqualValues(t, len(there)+100, r.AToB)
		require.EqualValues(t, len(back)+100, r.BToA)
	})
}

// TestPipeLargeStream: 100 MB, with equal hashes.
func TestPipeLargeStream(t *testing.T) {
	const size = 100 << 20
	for _, route := range routes {
		t.Run(route[0]+"-"+route[1], func(t *testing.T) {
			j := join(t, route[0], route[1])
			sent := make(chan [32]byte, 1)
			go func() {
				h := sha256.New()
				source := io.LimitReader(rand.NewChaCha8([32]byte{7}), size)
				_, _ = io.CopyBuffer(io.MultiWriter(j.client, h), source, make([]byte, 77777))
				_ = j.client.CloseWrite()
				sent <- [32]byte(h.Sum(nil))
			}()
			h := sha256.New()
			n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{j.server}, make([]byte, 99999))
			require.NoError(t, err)
			require.EqualValues(t, size, n)
			require.Equal(t, <-sent, [32]byte(h.Sum(nil)))
			require.NoError(t, j.server.Close())
			r := j.result(t)
			require.NoError(t, r.err)
			require.EqualValues(t, size, r.AToB)
			require.Zero(t, r.BToA)
		})
	}
}

// TestPipeDeliversWhatAWrapperHolds: a connection with a descriptor is not one that
// may be read behind its back.
func TestPipeDeliversWhatAWrapperHolds(t *testing.T) {
	client, near := tcpPair(t)
	_, err := io.WriteString(client, "hello")
	require.NoError(t, err)
	wrapper := &buffered{TCPConn: near.(*net.TCPConn), r: bufio.NewReader(near)}
	_, err = wrapper.r.Peek(5)
	require.NoError(t, err)
	j := &joint{client: client, a: wrapper, done: make(chan result, 1)}
	j.server, j.b = tcpPair(t)
	j.start(t)
	got := make([]byte, 5)
	_, err = io.ReadFull(j.server, got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
}

// TestPipeClearsDeadlines that were set for what came before.
func TestPipeClearsDeadlines(t *testing.T) {
	everyPairing(t, func(t *testing.T, left, right string) {
		j := &joint{done: make(chan result, 1)}
		j.client, j.a = kind(t, left)
		j.server, j.b = kind(t, right)
		for _, c := range []socketbridge.HalfCloser{j.a, j.b} {
			require.NoError(t, c.(net.Conn).SetReadDeadline(time.Unix(1, 0)))
		}
		j.start(t)
		sent := send(j.client, []byte("x"))
		_, err := io.ReadAll(j.server)
		require.NoError(t, err)
		require.NoError(t, <-sent)
		require.NoError(t, j.server.CloseWrite())
		require.NoError(t, j.result(t).err)
	})
}

// TestPipeRefuses what cannot be joined, without a panic, and closes the rest
// (FAILURES 11).
func TestPipeRefuses(t *testing.T) {
	_, good := tcpPair(t)
	_, other := tcpPair(t)
	var none *net.UnixConn
	for name, pair := range map[string][2]socketbridge.HalfCloser{
		"both nil":      {nil, nil},
		"b nil":         {good, nil},
		"a nil":         {nil, other},
		"a nil pointer": {none, nil},
	} {
		require.ErrorContains(t, socketbridge.Pipe(pair[0], pair[1]), "is nil", name)
	}
	for _, c := range []socketbridge.HalfCloser{good, other} {
		_, err := c.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
	}
	_, same := tcpPair(t)
	require.ErrorContains(t, socketbridge.Pipe(same, same), "the same connection")
	_, err := same.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)

	j := &joint{done: make(chan result, 1)} // a is closed already
	_, j.a = tcpPair(t)
	j.server, j.b = tcpPair(t)
	require.NoError(t, j.a.Close())
	j.start(t)
	r := j.result(t)
	require.ErrorIs(t, r.err, net.ErrClosed)
	require.ErrorContains(t, r.err, "socketbridge: pipe: read a: ")
}

// TestPipeEndsWithItsContext: idle, blocked in a write, half-closed, and before it began.
func TestPipeEndsWithItsContext(t *testing.T) {
	cause := errors.New("the test is over")
	states := map[string]func(t *testing.T, j *joint){
		"idle":    func(*testing.T, *joint) {},
		"blocked": func(t *testing.T, j *joint) { block(t, j.client) },
		"half-closed": func(t *testing.T, j *joint) {
			require.NoError(t, j.client.CloseWrite())
			_, err := j.server.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
		},
		"half-closed and blocked": func(t *testing.T, j *joint) {
			require.NoError(t, j.client.CloseWrite())
			_, err := j.server.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			block(t, j.server)
		},
	}
	for name, reach := range states {
		for _, route := range [][2]string{{"unix", "unix"}, {"tcp", "unix"}, {"unix", "tcp"}, {"tcp", "tcp"}, {"tls", "buffered"}} {
			t.Run(name+", "+route[0]+"-"+route[1], func(t *testing.T) {
				right := route[1]
				j := join(t, route[0], right)
				reach(t, j)
				j.cancel(cause)
				r := j.result(t)
				require.ErrorIs(t, r.err, context.Canceled)
				require.ErrorIs(t, r.err, cause)
				if right == "unix" && name == "blocked" { // nothing that a unix socket accepted is lost
					n, err := drained(j.server)
					require.NoError(t, err)
					require.Equal(t, r.AToB, n)
				}
			})
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, a := tcpPair(t)
	_, b := tcpPair(t)
	stats, err := socketbridge.PipeContext(ctx, a, b)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, stats.AToB+stats.BToA)
}

// TestPipeDeliversAnEarlyAnswer: a server answers and closes before it has read the
// request, whose client is still sending, as one does that refuses an upload. The
// answer arrives, whatever is on either side.
func TestPipeDeliversAnEarlyAnswer(t *testing.T) {
	everyPairing(t, func(t *testing.T, left, right string) {
		if runtime.GOOS != "linux" && right != "unix" {
			right = "memory" // elsewhere a reset, as by TCP with bytes unread, may throw the answer away
		}
		for range 5 {
			early(t, join(t, left, right))
		}
	})
	t.Run("wrapped unix", func(t *testing.T) {
		for _, left := range kinds {
			j := &joint{done: make(chan result, 1)}
			j.client, j.a = left.pair(t)
			server, near := unixPair(t)
			j.server, j.b = server, struct{ *net.UnixConn }{near.(*net.UnixConn)}
			j.start(t)
			early(t, j)
		}
	})
}

func early(t *testing.T, j *joint) {
	answer := noise(16 << 10) // TCP does not keep what it could not send at once
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		for err := error(nil); err == nil; {
			_, err = j.client.Write(make([]byte, 32<<10))
		}
	}()
	_, err := io.ReadFull(j.server, make([]byte, 100))
	require.NoError(t, err)
	go func() { // nobody reads it from the memory of a server
		_, _ = j.server.Write(answer)
		_ = j.server.CloseWrite()
		_ = j.server.Close()
	}()
	got, err := io.ReadAll(struct{ io.Reader }{j.client})
	require.NoError(t, err)
	require.True(t, bytes.Equal(answer, got), "%d of %d bytes", len(got), len(answer))
	_ = j.client.Close() // TLS wants to say so
	<-sending
	require.EqualValues(t, len(answer), j.result(t).BToA)
}

// TestPipeCutStreamIsNoCompleteOne: a TCP peer, also below TLS, sees an error and not
// EOF when the pipe was cut.
func TestPipeCutStreamIsNoCompleteOne(t *testing.T) {
	far, near := tcpPair(t)
	require.NoError(t, near.(*net.TCPConn).SetLinger(0))
	require.NoError(t, near.Close())
	if _, err := far.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		house.WineLacks(t, "resets of TCP")
	}
	for _, right := range []string{"tcp", "tls"} {
		for _, reset := range []bool{false, true} {
			j := join(t, "tcp", right)
			_, err := j.client.Write([]byte("x"))
			require.NoError(t, err)
			_, err = j.server.Read(make([]byte, 1))
			require.NoError(t, err)
			if reset {
				require.NoError(t, j.client.(*net.TCPConn).SetLinger(0))
				require.NoError(t, j.client.Close())
			} else {
				j.cancel(nil)
			}
			_, err = drained(j.server)
			require.Error(t, err)
			r := j.result(t)
			require.Error(t, r.err)
			if reset {
				require.ErrorContains(t, r.err, "socketbridge: pipe: read a: ")
			}
			require.EqualValues(t, 1, r.AToB)
		}
	}
}

// A faulty connection does what a Read or Write of someone else's may do.
type faulty struct {
	socketbridge.HalfCloser
	read, write func([]byte) (int, error)
}

func (c faulty) Read(b []byte) (int, error)  { return c.read(b) }
func (c faulty) Write(b []byte) (int, error) { return c.write(b) }

// TestPipeSurvivesFaultyConnections: what no connection should do is an error.
func TestPipeSurvivesFaultyConnections(t *testing.T) {
	eof := func([]byte) (int, error) { return 0, io.EOF }
	one := func(b []byte) (int, error) { return 1, nil }
	for name, test := range map[string]struct {
		read, write func([]byte) (int, error)
		want        string
	}{
		"reads more than there is room for": {func(b []byte) (int, error) { return len(b) + 1, nil }, one, "read a: "},
		"reads less than nothing":           {func([]byte) (int, error) { return -1, nil }, one, "read a: "},
		"reads nothing for ever":            {func([]byte) (int, error) { return 0, nil }, one, "read a: " + io.ErrNoProgress.Error()},
		"writes less, without an error":     {one, func([]byte) (int, error) { return 0, nil }, "write b: short write"},
		"writes more than it was given":     {one, func(b []byte) (int, error) { return len(b) + 1, nil }, "write b: "},
	} {
		_, a := memPair(text{"mem", "peer"})
		_, b := memPair(text{"mem", "peer"})
		stats, err := socketbridge.PipeContext(t.Context(), faulty{a, test.read, nil}, faulty{b, eof, test.write})
		require.ErrorContains(t, err, "socketbridge: pipe: "+test.want, name)
		require.Zero(t, stats.AToB, name)
	}
	// Bytes that come together with EOF are delivered.
	_, a := memPair(text{"mem", "peer"})
	_, b := memPair(text{"mem", "peer"})
	last := func(b []byte) (int, error) { return copy(b, "last"), io.EOF }
	stats, err := socketbridge.PipeContext(t.Context(), faulty{a, last, nil}, faulty{b, eof, func(b []byte) (int, error) { return len(b), nil }})
	require.NoError(t, err)
	require.EqualValues(t, 4, stats.AToB)
}
