// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/capture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen at once; it only matters when a test fails.
const patience = 20 * time.Second

// running is a Run in a goroutine of the test.
type running struct {
	cancel context.CancelFunc
	err    chan error
}

// start runs a capture into w and returns once it listens.
func start(t *testing.T, tap *capture.Tap, w io.Writer, snapLen uint32) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{cancel: cancel, err: make(chan error, 1)}
	first := &signalWriter{w: w, written: make(chan struct{})}
	go func() { r.err <- tap.Run(ctx, first, snapLen) }()
	t.Cleanup(cancel)
	await(t, first.written) // the section header: Run listens before it writes
	return r
}

func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.err:
		return err
	case <-time.After(patience):
		require.FailNow(t, "Run does not return")
		return nil
	}
}

func (r *running) end(t *testing.T) error {
	t.Helper()
	r.cancel()
	return r.wait(t)
}

func await(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.FailNow(t, "nothing happens")
	}
}

// signalWriter closes written at the first Write.
type signalWriter struct {
	w       io.Writer
	once    sync.Once
	written chan struct{}
}

func (s *signalWriter) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.written) })
	return s.w.Write(p)
}

// gate is a writer that blocks until it is opened.
type gate struct {
	open chan struct{}
	bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	return g.Buffer.Write(p)
}

type packet struct {
	iface  string
	in     bool
	length int
	data   []byte
	at     time.Time
}

// readAll reads a capture back, and its statistics by interface name.
func readAll(t *testing.T, r io.Reader) ([]packet, map[string]pcapgo.NgInterfaceStatistics) {
	t.Helper()
	ng, err := pcapgo.NewNgReader(r, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	require.Equal(t, layers.LinkTypeEthernet, ng.LinkType())
	var packets []packet
	for {
		data, info, opts, err := ng.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || opts.Flags == nil { // plain: some tests read very many
			require.Failf(t, "not a packet", "%v, %v", err, opts.Flags)
		}
		iface, err := ng.Interface(info.InterfaceIndex)
		if err != nil {
			require.NoError(t, err)
		}
		packets = append(packets, packet{
			iface:  iface.Name,
			in:     opts.Flags.Direction == pcapgo.NgEpbFlagDirectionInbound,
			length: info.Length,
			data:   data,
			at:     info.Timestamp,
		})
	}
	stats := map[string]pcapgo.NgInterfaceStatistics{}
	for i := range ng.NInterfaces() {
		iface, err := ng.Interface(i)
		require.NoError(t, err)
		require.EqualValues(t, 9, iface.TimestampResolution)
		stats[iface.Name] = iface.Statistics
	}
	return packets, stats
}

func frame(n, size int) []byte {
	f := make([]byte, size)
	for i := range f {
		f[i] = byte(n + i)
	}
	return f
}

func TestFramesAreReadBackAsTheyWere(t *testing.T) {
	var tap capture.Tap
	var file bytes.Buffer
	r := start(t, &tap, &file, 0)

	sizes := []int{0, 1, 14, 59, 60, 61, 1514, 4000, 65535, 65559}
	var want []packet
	for n, size := range sizes {
		f := frame(n, size)
		tap.Frame(n%3, n%2 == 0, f)
		want = append(want, packet{iface: fmt.Sprintf("port %d", n%3), in: n%2 == 0, length: size, data: bytes.Clone(f)})
		clear(f) // the tap has its own copy
	}
	require.NoError(t, r.end(t))
	require.False(t, tap.Active())

	got, stats := readAll(t, &file)
	require.Len(t, got, len(want))
	for i, p := range got {
		if i > 0 {
			require.False(t, p.at.Before(got[i-1].at), "timestamps go back")
		}
		p.at = time.Time{}
		if p.length == 0 {
			p.data = []byte{}
		}
		require.Equal(t, want[i], p)
	}
	require.EqualValues(t, 4, stats["port 0"].PacketsReceived)
	require.EqualValues(t, 3, stats["port 1"].PacketsReceived)
	require.EqualValues(t, 0, stats["port 1"].PacketsDropped)
	require.EqualValues(t, 0, stats["switch"].PacketsReceived)
}

func TestACaptureWithoutFramesIsAValidFile(t *testing.T) {
	var tap capture.Tap
	var file bytes.Buffer
	require.NoError(t, start(t, &tap, &file, 0).end(t))
	packets, _ := readAll(t, &file)
	require.Empty(t, packets)
}

func TestSnapLenCutsTheDataAndKeepsTheLength(t *testing.T) {
	var tap capture.Tap
	var file bytes.Buffer
	r := start(t, &tap, &file, 64)
	tap.Frame(1, true, frame(1, 60))
	tap.Frame(1, true, frame(2, 1514))
	require.NoError(t, r.end(t))

	got, _ := readAll(t, &file)
	require.Len(t, got, 2)
	require.Equal(t, frame(1, 60), got[0].data)
	require.Equal(t, frame(2, 1514)[:64], got[1].data)
	require.Equal(t, 1514, got[1].length)
}

func TestInterfacesAreBounded(t *testing.T) {
	var tap capture.Tap
	var file bytes.Buffer
	r := start(t, &tap, &file, 0)
	tap.Frame(-1, true, frame(0, 60))
	for n := range 1000 {
		tap.Frame(n, true, frame(n, 60))
	}
	tap.Frame(3, true, frame(0, 60))
	require.NoError(t, r.end(t))

	got, stats := readAll(t, &file)
	require.Len(t, got, 1002)
	require.Equal(t, "switch", got[0].iface)
	require.Equal(t, "port 0", got[1].iface)
	require.Equal(t, "switch", got[1000].iface)
	require.Equal(t, "port 3", got[1001].iface)
	require.Len(t, stats, 256)
}

// A reader at the other end of a pipe sees each frame while the capture runs.
func TestFramesArePromptlyVisible(t *testing.T) {
	var tap capture.Tap
	pr, pw := io.Pipe()
	r := start(t, &tap, pw, 0)
	packets := make(chan []byte)
	read := make(chan struct{})
	go func() {
		defer close(read)
		ng, err := pcapgo.NewNgReader(pr, pcapgo.DefaultNgReaderOptions)
		for err == nil {
			var data []byte
			if data, _, err = ng.ReadPacketData(); err == nil {
				packets <- data
			}
		}
		_, _ = io.Copy(io.Discard, pr)
	}()
	for n := range 20 {
		tap.Frame(0, true, frame(n, 100))
		select {
		case got := <-packets:
			require.Equal(t, frame(n, 100), got)
		case <-time.After(patience):
			require.FailNow(t, "the frame is not written")
		}
	}
	require.NoError(t, r.end(t))
	require.NoError(t, pw.Close())
	await(t, read)
}

func TestABlockedWriterDropsAndCountsAndDelaysNobody(t *testing.T) {
	const frames, size = 8000, 1000
	var tap capture.Tap
	stuck := &gate{open: make(chan struct{})}
	var file bytes.Buffer
	blocked, healthy := start(t, &tap, stuck, 0), start(t, &tap, &file, 64)

	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range frames { // twice what a queue holds
			tap.Frame(7, false, frame(n, size))
		}
	}()
	await(t, done) // while the writer is stuck

	require.NoError(t, healthy.end(t))
	got, _ := readAll(t, &file)
	require.Len(t, got, frames)

	blocked.cancel() // Run cannot return before its writer does; what it took is written
	close(stuck.open)
	require.NoError(t, blocked.wait(t))
	got, stats := readAll(t, &stuck.Buffer)
	port := stats["port 7"]
	require.EqualValues(t, frames, port.PacketsReceived)
	require.NotZero(t, port.PacketsDropped)
	require.EqualValues(t, frames, uint64(len(got))+port.PacketsDropped)
	for i, p := range got { // the oldest are kept, in order
		require.Equal(t, frame(i, size), p.data)
	}
	// The queue holds what it says: 4 MiB of these is more than 4,000 of them.
	require.Greater(t, len(got), 4000)
}

func TestAWriterErrorEndsTheCapture(t *testing.T) {
	broken := errors.New("disk full")
	for name, after := range map[string]int{"at once": 0, "later": 1} {
		t.Run(name, func(t *testing.T) {
			var tap capture.Tap
			r := start(t, &tap, &failing{err: broken, after: after}, 0)
			tap.Frame(1, true, frame(1, 60))
			require.ErrorIs(t, r.wait(t), broken)
			require.False(t, tap.Active())
			tap.Frame(1, true, frame(1, 60))
		})
	}
}

// failing takes a number of writes, then fails.
type failing struct {
	err   error
	after int
}

func (f *failing) Write(p []byte) (int, error) {
	if f.after == 0 {
		return 0, f.err
	}
	f.after--
	return len(p), nil
}

func TestCloseEndsEveryRun(t *testing.T) {
	var tap capture.Tap
	var files [3]bytes.Buffer
	var runs []*running
	for i := range files {
		runs = append(runs, start(t, &tap, &files[i], 0))
	}
	tap.Frame(1, true, frame(1, 60))
	tap.Close()
	tap.Close()
	for i, r := range runs {
		require.NoError(t, r.wait(t))
		got, _ := readAll(t, &files[i])
		require.Len(t, got, 1)
	}
	require.False(t, tap.Active())
	tap.Frame(1, true, frame(1, 60))

	err := tap.Run(t.Context(), io.Discard, 0)
	require.ErrorIs(t, err, capture.ErrClosed)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestAnEndedContextStillWritesAFile(t *testing.T) {
	var tap capture.Tap
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var file bytes.Buffer
	require.NoError(t, tap.Run(ctx, &file, 0))
	packets, _ := readAll(t, &file)
	require.Empty(t, packets)
}

// FAILURES 34: captures go on and off while frames are running, and each has
// every frame of its time, in order.
func TestCapturesComeAndGoWhileFramesFlow(t *testing.T) {
	var tap capture.Tap
	ctx, cancel := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	var sent, allowed atomic.Int64 // enough to flow all the time, not more than can be checked
	for port := range 3 {
		senders.Go(func() {
			for n := 0; ctx.Err() == nil; {
				runtime.Gosched()
				if sent.Load() >= allowed.Load() {
					continue
				}
				tap.Frame(port, true, []byte{byte(n), byte(n >> 8), byte(n >> 16)})
				sent.Add(1)
				n++
			}
		})
	}
	for range 10 {
		allowed.Store(sent.Load() + 20_000)
		var one, two bytes.Buffer
		a := start(t, &tap, &one, 0)
		b := start(t, &tap, &two, 0)
		enough := sent.Load() + 300
		allowed.Add(1000)
		require.Eventually(t, func() bool { return sent.Load() >= enough }, patience, time.Millisecond)
		require.NoError(t, a.end(t))
		require.NoError(t, b.end(t))
		for _, file := range []*bytes.Buffer{&one, &two} {
			got, stats := readAll(t, file)
			require.GreaterOrEqual(t, len(got), 290)
			last := map[string]int{}
			for i, p := range got {
				n := int(p.data[0]) | int(p.data[1])<<8 | int(p.data[2])<<16
				prev, seen := last[p.iface]
				if seen && stats[p.iface].PacketsDropped == 0 && n != (prev+1)&0xffffff {
					require.Failf(t, "frames are missing", "%s: %d after %d", p.iface, n, prev)
				}
				if i > 0 && p.at.Before(got[i-1].at) {
					require.Fail(t, "timestamps go back")
				}
				last[p.iface] = n
			}
		}
	}
	cancel()
	senders.Wait()
	require.False(t, tap.Active())
}

// FAILURES 34: off by default, and then nothing of the frame is touched.
func TestAnIdleTapCostsNothing(t *testing.T) {
	var tap capture.Tap
	require.False(t, tap.Active())
	f := frame(0, 1514)
	require.Zero(t, testing.AllocsPerRun(100, func() { tap.Frame(1, true, f) }))
}

func BenchmarkFrame(b *testing.B) {
	f := frame(0, 1514)
	b.Run("off", func(b *testing.B) {
		var tap capture.Tap
		for b.Loop() {
			if tap.Active() {
				tap.Frame(1, true, f)
			}
		}
	})
	b.Run("on", func(b *testing.B) {
		var tap capture.Tap
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		listening := &signalWriter{w: io.Discard, written: make(chan struct{})}
		go func() { done <- tap.Run(ctx, listening, 0) }()
		<-listening.written
		b.SetBytes(int64(len(f)))
		for b.Loop() {
			tap.Frame(1, true, f)
		}
		cancel()
		require.NoError(b, <-done)
	})
}
