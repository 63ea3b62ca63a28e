// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package capture writes live Ethernet frames as pcapng, for Wireshark,
// tshark or tcpdump.
//
// The data path asks [Tap.Active] and hands its frames to [Tap.Frame], which
// copies them into a bounded queue and never waits. Each capture is one call of
// [Tap.Run], which drains a queue of its own into its writer. Captures come and
// go while frames flow; with none running a frame costs one atomic load.
//
// # Ownership
//
// The package starts no goroutine: Run works in its caller's. The writer stays
// the caller's too, it is flushed but never closed.
//
// # Limits
//
// A queue holds 4 MiB of frames. When the writer is slower than the traffic,
// frames beyond that are dropped for this capture alone, and the statistics at
// the end of the file say how many. A Run holds two such buffers at most.
package capture

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// ErrClosed is returned by [Tap.Run] after [Tap.Close]. It is a [net.ErrClosed].
var ErrClosed = fmt.Errorf("capture: tap closed: %w", net.ErrClosed)

// A Tap is the point in the data path where captures listen. The zero value is
// ready to use and must not be copied. All methods may be called concurrently.
type Tap struct {
	queues atomic.Pointer[[]*queue] // nil while nobody listens; the slice is never changed, only replaced

	mu     sync.Mutex // orders the changes of queues, and guards closed
	closed bool
}

// Active reports whether a capture is running.
func (t *Tap) Active() bool { return t.queues.Load() != nil }

// Frame hands a frame, from its Ethernet header on and without FCS, to every
// running capture. It copies the frame and never blocks: where a capture's
// queue is full, the frame is dropped and counted there.
//
// iface tells frames of one port from those of another; each number becomes an
// interface "port N" of the capture, and those that cannot (negative, or beyond
// the first 255 of a capture) share one called "switch". in says that the frame
// came from the port, not that it goes there.
func (t *Tap) Frame(iface int, in bool, frame []byte) {
	queues := t.queues.Load()
	if queues == nil {
		return
	}
	for _, q := range *queues {
		q.push(iface, in, frame)
	}
}

// Run writes a capture to w until ctx ends or the tap is closed, and then
// returns nil, with everything queued written and flushed; or until w fails,
// and then returns an error that wraps w's. Frames longer than snapLen bytes are
// cut to it; 0 keeps them whole.
//
// The section header is written at once, frames as they come: w has seen every
// frame whenever the queue is empty. A w that blocks holds up neither Frame nor
// other captures, but Run itself cannot return before w does, not even when ctx
// ends. To bound that, close w or give it a deadline.
//
// Several may run at once. After Close, Run returns [ErrClosed].
func (t *Tap) Run(ctx context.Context, w io.Writer, snapLen uint32) error {
	q := &queue{
		snapLen: int(snapLen),
		start:   time.Now(),
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		ids:     map[int]uint32{},
		ifaces:  []ifaceStats{{name: sharedIface}},
	}
	if err := t.add(q); err != nil {
		return err
	}
	defer t.remove(q)
	if err := q.drain(ctx, w); err != nil {
		return fmt.Errorf("capture: write: %w", err)
	}
	return nil
}

// Close ends every Run with nil; later ones return [ErrClosed]. It does not
// wait for them, for they wait for their writers: whoever called Run knows when
// it is over.
func (t *Tap) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if queues := t.queues.Swap(nil); queues != nil {
		for _, q := range *queues {
			close(q.stop)
		}
	}
}

func (t *Tap) add(q *queue) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	var queues []*queue
	if old := t.queues.Load(); old != nil {
		queues = slices.Clone(*old)
	}
	queues = append(queues, q)
	t.queues.Store(&queues)
	return nil
}

func (t *Tap) remove(q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.queues.Load()
	if old == nil {
		return
	}
	queues := slices.DeleteFunc(slices.Clone(*old), func(other *queue) bool { return other == q })
	if len(queues) == 0 {
		t.queues.Store(nil)
		return
	}
	t.queues.Store(&queues)
}

const (
	queueBytes  = 4 << 20
	maxIfaces   = 256 // a guest that reconnects for ever must not grow the table for ever
	sharedIface = "switch"
)

// A queue carries frames from the data path to one Run: a single buffer of
// records that push appends to and take swaps for an empty one, so that in the
// long run nothing is allocated per frame.
type queue struct {
	snapLen int
	start   time.Time
	wake    chan struct{} // one token: the buffer was empty and is not any more
	stop    chan struct{} // closed by Tap.Close

	mu     sync.Mutex
	ended  bool // Run has taken the last buffer
	buf    []byte
	ids    map[int]uint32 // from the caller's interface numbers to indices of ifaces
	ifaces []ifaceStats
}

type ifaceStats struct {
	name              string
	received, dropped uint64
}

// A record is this header, then the captured bytes: nanoseconds since start (8),
// interface (4), length on the wire (4), captured length (4), direction (1).
const headerLen = 21

func (q *queue) push(iface int, in bool, frame []byte) {
	captured := frame
	if q.snapLen > 0 && len(frame) > q.snapLen {
		captured = frame[:q.snapLen]
	}
	direction := pcapgo.NgEpbFlagDirectionOutbound
	if in {
		direction = pcapgo.NgEpbFlagDirectionInbound
	}

	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return
	}
	id, known := q.ids[iface]
	if !known && iface >= 0 && len(q.ifaces) < maxIfaces {
		id = uint32(len(q.ifaces))
		q.ids[iface] = id
		q.ifaces = append(q.ifaces, ifaceStats{name: fmt.Sprintf("port %d", iface)})
	}
	stats := &q.ifaces[id]
	stats.received++
	if len(q.buf)+headerLen+len(captured) > queueBytes {
		stats.dropped++
		return
	}
	if len(q.buf) == 0 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	// Taken under the lock and from the monotonic clock: the order of the
	// file is the order of its timestamps, even when the wall clock is set.
	q.buf = binary.LittleEndian.AppendUint64(q.buf, uint64(time.Since(q.start)))
	q.buf = binary.LittleEndian.AppendUint32(q.buf, id)
	q.buf = binary.LittleEndian.AppendUint32(q.buf, uint32(len(frame)))
	q.buf = binary.LittleEndian.AppendUint32(q.buf, uint32(len(captured)))
	q.buf = append(q.buf, byte(direction))
	q.buf = append(q.buf, captured...)
}

// take returns what is queued and leaves spare, emptied, in its place. ifaces
// holds at least the interfaces that the records speak of. After the last take,
// push does nothing.
func (q *queue) take(spare []byte, last bool) (records []byte, ifaces []ifaceStats) {
	q.mu.Lock()
	defer q.mu.Unlock()
	records, q.buf = q.buf, spare[:0]
	q.ended = q.ended || last
	return records, slices.Clip(q.ifaces)
}

// drain is Run without the bookkeeping.
func (q *queue) drain(ctx context.Context, w io.Writer) error {
	iface := pcapgo.NgInterface{
		Name:       sharedIface,
		OS:         runtime.GOOS,
		LinkType:   layers.LinkTypeEthernet,
		SnapLength: uint32(q.snapLen),
	}
	// NgWriter takes a buffer that is large enough for its own, whose 4 KiB
	// would mean a write for every other frame.
	ng, err := pcapgo.NewNgWriterInterface(bufio.NewWriterSize(w, 64<<10), iface, pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "guestnet"},
	})
	if err != nil {
		return err
	}
	known := 1
	var records []byte
	for last := false; ; {
		var ifaces []ifaceStats
		records, ifaces = q.take(records, last)
		for ; known < len(ifaces); known++ {
			iface.Name = ifaces[known].name
			if _, err := ng.AddInterface(iface); err != nil {
				return err
			}
		}
		if err := q.write(ng, records); err != nil {
			return err
		}
		if last {
			return q.finish(ng, ifaces)
		}
		if err := ng.Flush(); err != nil {
			return err
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			last = true
		case <-q.stop:
			last = true
		}
	}
}

func (q *queue) write(ng *pcapgo.NgWriter, records []byte) error {
	var flags pcapgo.NgEpbFlags
	for len(records) > 0 {
		header := records[:headerLen]
		n := int(binary.LittleEndian.Uint32(header[16:]))
		flags.Direction = pcapgo.NgEpbFlag(header[20])
		info := gopacket.CaptureInfo{
			Timestamp:      q.start.Add(time.Duration(binary.LittleEndian.Uint64(header))),
			InterfaceIndex: int(binary.LittleEndian.Uint32(header[8:])),
			Length:         int(binary.LittleEndian.Uint32(header[12:])),
			CaptureLength:  n,
		}
		data := records[headerLen : headerLen+n]
		if err := ng.WritePacketWithOptions(info, data, pcapgo.NgPacketOptions{Flags: &flags}); err != nil {
			return err
		}
		records = records[headerLen+n:]
	}
	return nil
}

func (q *queue) finish(ng *pcapgo.NgWriter, ifaces []ifaceStats) error {
	end := q.start.Add(time.Since(q.start))
	for i, stats := range ifaces {
		err := ng.WriteInterfaceStats(i, pcapgo.NgInterfaceStatistics{
			LastUpdate:      end,
			StartTime:       q.start,
			EndTime:         end,
			PacketsReceived: stats.received,
			PacketsDropped:  stats.dropped,
		})
		if err != nil {
			return err
		}
	}
	return ng.Flush()
}
