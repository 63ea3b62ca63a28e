// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
)

// A gated writer begins a write, and ends it when it is told how.
type gated struct {
	begun chan int
	end   chan error
}

func newGated() *gated { return &gated{make(chan int), make(chan error)} }

func (g *gated) Write([]byte) (int, error) { panic("it has WriteBuffers") }

func (g *gated) WriteBuffers(buffers [][]byte) (n int64, err error) {
	for _, b := range buffers {
		n += int64(len(b))
	}
	g.begun <- int(n)
	return n, <-g.end
}

// drainGated is Drain, until the test ends.
func drainGated(t *testing.T, q *frame.Queue, g *gated) {
	ended := make(chan struct{})
	go func() { defer close(ended); _ = q.Drain(g) }()
	t.Cleanup(func() {
		q.Close()
		select {
		case <-g.begun:
			g.end <- nil
		case g.end <- nil:
		case <-ended:
		}
		<-ended
	})
}

// fill puts n bytes, by the KiB.
func fill(t *testing.T, q *frame.Queue, n int) {
	t.Helper()
	for range n >> 10 {
		require.True(t, q.Put(make([]byte, 1022)))
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestFullWhileMuchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no write takes any time
		q := frame.NewQueue(1 << 20)
		require.Nil(t, q.Full(), "empty")
		fill(t, q, 384<<10)
		require.Nil(t, q.Full(), "three eighths")
		fill(t, q, 1<<10)
		full := q.Full()
		require.NotNil(t, full)
		fill(t, q, 100<<10)
		require.Equal(t, full, q.Full(), "one channel for all who wait")
		require.False(t, isClosed(full))

		g := newGated()
		drainGated(t, q, g)
		require.Equal(t, 485<<10, <-g.begun)
		require.Equal(t, full, q.Full(), "what is being written is not written")
		fill(t, q, 300<<10)
		g.end <- nil
		require.Equal(t, 300<<10, <-g.begun)
		require.Nil(t, q.Full(), "it is less than that")
		require.False(t, isClosed(full), "and more than half of it")
		fill(t, q, 150<<10)
		g.end <- nil
		require.Equal(t, 150<<10, <-g.begun)
		await(t, full, "less than half of it waits")
		require.Nil(t, q.Full())
		fill(t, q, 320<<10)
		again := q.Full()
		require.NotNil(t, again, "full again")
		require.False(t, isClosed(again))
	})
}

// Who does not ask is not kept out by those who do: they leave room for what can be
// spared.
func TestWhatCanBeSparedHasRoomBeyondFull(t *testing.T) {
	q := frame.NewQueue(1 << 20)
	level(t, q)
	n, _ := q.Len()
	for ; n < 512<<10; n += 1 << 10 {
		require.True(t, q.PutSpare(frame.Header{}, make([]byte, 1022)), "%d bytes wait", n)
	}
	require.False(t, q.PutSpare(frame.Header{}, make([]byte, 1022)), "half of the queue")
	require.True(t, q.Put(make([]byte, 1022)))
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.Fail(t, "still waiting: "+what)
	}
}

func TestCloseLetsGoWhoWaitsForRoom(t *testing.T) {
	q := frame.NewQueue(1 << 20)
	fill(t, q, 600<<10)
	full := q.Full()
	require.NotNil(t, full)
	q.Close()
	require.True(t, isClosed(full))
	require.Nil(t, q.Full(), "a closed queue takes nothing: there is nothing to wait for")
	q.Close()
}

func TestAWriteThatFailsLetsGoWhoWaitsForRoom(t *testing.T) {
	broken := errors.New("broken")
	q, g := frame.NewQueue(1<<20), newGated()
	fill(t, q, 600<<10)
	full := q.Full()
	ended := make(chan error, 1)
	go func() { ended <- q.Drain(g) }()
	<-g.begun
	require.False(t, isClosed(full))
	g.end <- broken
	require.Equal(t, broken, <-ended)
	require.True(t, isClosed(full))
	require.Nil(t, q.Full())
}

// A write that ends when the queue is closed already gives nothing back twice.
func TestCloseDuringAWriteSettlesTheAccount(t *testing.T) {
	q, g := frame.NewQueue(1<<20), newGated()
	fill(t, q, 600<<10)
	ended := make(chan error, 1)
	go func() { ended <- q.Drain(g) }()
	<-g.begun
	q.Close()
	g.end <- nil
	require.NoError(t, <-ended)
	queued, _ := q.Len()
	require.Zero(t, queued)
	require.Nil(t, q.Full())
}

// A many is a writer of many buffers at a time, and of no other.
type many struct{ got chan [][]byte }

func (m many) Write([]byte) (int, error) { return 0, errors.New("not with Write") }

func (m many) WriteBuffers(buffers [][]byte) (n int64, err error) {
	var all [][]byte
	for _, b := range buffers {
		n += int64(len(b))
		all = append(all, bytes.Clone(b))
	}
	m.got <- all
	return n, nil
}

func TestDrainGivesAllBuffersToWhoTakesMany(t *testing.T) {
	q, m := frame.NewQueue(1<<20), many{make(chan [][]byte, 1)}
	var want []byte
	for i := range 5 {
		f := pattern(i, 50_000)
		require.True(t, q.Put(f))
		want = append(want, encode(f)...)
	}
	drain(t, q, m)
	select {
	case got := <-m.got:
		require.Greater(t, len(got), 1)
		require.True(t, bytes.Equal(want, bytes.Join(got, nil)))
	case <-time.After(patience):
		require.Fail(t, "nothing was written")
	}
	require.Eventually(t, func() bool { queued, _ := q.Len(); return queued == 0 }, patience, time.Millisecond)
}

// level is how much has to wait in a queue that nobody takes from for it to be full.
func level(t *testing.T, q *frame.Queue) (n int) {
	t.Helper()
	for q.Full() == nil {
		require.True(t, q.Put(make([]byte, 1022)))
		n += 1 << 10
	}
	return n
}

// What is much is a matter of time: the writer says in each of its writes how fast it is.
func TestFullIsAMatterOfMilliseconds(t *testing.T) {
	const limit, most = 8 << 20, 3 << 20
	for name, c := range map[string]struct {
		limit, write int
		in           []time.Duration // writes of that many bytes; the last one for long
		want         int             // how many bytes are many then
	}{
		"at first":                            {limit, 1 << 20, nil, most},
		"fast":                                {limit, 1 << 20, []time.Duration{time.Microsecond}, most},
		"no time at all":                      {limit, 1 << 20, []time.Duration{0}, most},
		"1 MiB in 8 ms":                       {limit, 1 << 20, []time.Duration{8 * time.Millisecond}, 512 << 10},
		"1 MiB in 2 ms":                       {limit, 1 << 20, []time.Duration{2 * time.Millisecond}, 2 << 20},
		"slow, and no less than so much":      {limit, 1 << 20, []time.Duration{time.Second}, 256 << 10},
		"slow with little, which may be luck": {limit, 200 << 10, []time.Duration{time.Second}, most},
		"slow, and then fast":                 {limit, 1 << 20, []time.Duration{time.Second, time.Microsecond}, most},
		"fast, and then slow":                 {limit, 1 << 20, []time.Duration{time.Microsecond, time.Second}, 256 << 10},
		"slow, with that more than the most":  {400 << 10, 300 << 10, []time.Duration{time.Second}, 150 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, g := frame.NewQueue(c.limit), newGated()
				drainGated(t, q, g)
				for _, in := range c.in {
					for range 30 {
						// One byte under way, so that the rest goes with one write.
						require.True(t, q.Put(make([]byte, 1)))
						<-g.begun
						fill(t, q, c.write)
						g.end <- nil
						require.Equal(t, c.write, <-g.begun)
						if in > 0 {
							<-time.After(in)
						}
						g.end <- nil
						synctest.Wait()
					}
				}
				require.True(t, q.Put(make([]byte, 1022)))
				<-g.begun // nobody takes anything from here on
				got := level(t, q) + 1<<10
				require.InDelta(t, c.want, got, 2<<10) // it is halved, the rounding with it
			})
		})
	}
}

// One slow write is not the end: it takes some for Full to come early.
func TestASlowWriteCountsByHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, g := frame.NewQueue(8<<20), newGated()
		drainGated(t, q, g)
		require.True(t, q.Put(make([]byte, 1)))
		<-g.begun
		fill(t, q, 1<<20)
		g.end <- nil
		<-g.begun
		<-time.After(time.Hour)
		g.end <- nil
		synctest.Wait()
		require.True(t, q.Put(make([]byte, 1022)))
		<-g.begun
		require.InDelta(t, 3<<19, level(t, q)+1<<10, 2<<10)
	})
}
