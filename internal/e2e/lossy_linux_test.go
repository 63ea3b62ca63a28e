// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// How bad a bad wire is, in frames of a hundred. What is late is overtaken by up to
// eight others, or by those that come within a moment.
const (
	lostFrames = 1
	lateFrames = 3
	mostLate   = 8
	lateTime   = 2 * time.Millisecond
)

// testLoss: TCP keeps its word when frames are lost and overtaken on their way, both
// those of the MTU and those that stand for many.
func testLoss(guest guestKind) func(*testing.T, programs) {
	return func(t *testing.T, p programs) {
		l := newBulkLab(t, p)
		w := newBadWire(t, l.net)
		guest.start(l, "-connect", "unix://"+w.path)
		w.bad.Store(true)
		n := size(256<<20, 2<<20)
		for name, streams := range map[string]func(client, server net.Conn) []stream{
			"up":           func(client, server net.Conn) []stream { return []stream{{from: client, to: server, bytes: n}} },
			"down":         func(client, server net.Conn) []stream { return []stream{{from: server, to: client, bytes: n}} },
			"both at once": func(client, server net.Conn) []stream { return both(client, server, n) },
		} {
			t.Run(name, func(t *testing.T) {
				carried(t, l.hostswitch, streams(l.up(l.guest).connect(t))...)
			})
		}
		for way, lane := range map[string]*lane{"up": &w.up, "down": &w.down} {
			frames, large := lane.frames.Load(), lane.large.Load()
			t.Logf("%s: %d frames, %d of them for several; of all %d lost and %d late", way, frames, large, lane.lost.Load(), lane.late.Load())
			require.Equal(t, guest.offload, large > 0)
			require.Positive(t, lane.lost.Load())
			require.Positive(t, lane.late.Load())
		}
	}
}

// A badWire stands between a guest and the host's switch. While it is bad it loses
// frames, and has others be overtaken, as dice say that fall alike every time.
type badWire struct {
	path     string // where the guest connects
	bad      atomic.Bool
	up, down lane
}

// A lane is one direction.
type lane struct {
	bad                       *atomic.Bool
	last                      byte // the kind of the message that is the last plain frame
	dice                      *rand.Rand
	frames, large, lost, late atomic.Int64
}

func newBadWire(t *testing.T, host string) *badWire {
	t.Helper()
	const accept, commit = 2, 3
	w := &badWire{path: filepath.Join(t.TempDir(), "wire")}
	w.up = lane{bad: &w.bad, last: commit, dice: rand.New(rand.NewPCG(1, 0))}
	w.down = lane{bad: &w.bad, last: accept, dice: rand.New(rand.NewPCG(2, 0))}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.path, Net: "unix"})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			guest, err := ln.Accept()
			if err != nil {
				return err
			}
			conn, err := new(net.Dialer).DialContext(t.Context(), "unix", host)
			if err != nil {
				return errors.Join(err, guest.Close())
			}
			var lanes sync.WaitGroup
			pass := func(l *lane, dst, src net.Conn) {
				l.pass(dst, src)
				_ = dst.Close() // what the one side is told by its end, the other is told too
				_ = src.Close()
			}
			lanes.Go(func() { pass(&w.up, conn, guest) })
			lanes.Go(func() { pass(&w.down, guest, conn) })
			lanes.Wait()
			return nil
		}()
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		require.NoError(t, <-done)
	})
	return w
}

// A lateFrame is sent in front of the frame that is this many places behind it, or
// when no other comes.
type lateFrame struct {
	f      []byte
	places int
}

// pass carries what comes from src until one of the two ends.
func (l *lane) pass(dst, src net.Conn) {
	in, out := bufio.NewReaderSize(src, 256<<10), bufio.NewWriterSize(dst, 256<<10)
	var late []*lateFrame
	release := func(places int) {
		late = slices.DeleteFunc(late, func(f *lateFrame) bool {
			if f.places -= places; f.places > 0 {
				return false
			}
			_, _ = out.Write(f.f) // Flush has the error
			return true
		})
	}
	for offload := false; ; {
		if in.Buffered() == 0 {
			if out.Flush() != nil {
				return
			}
			if len(late) > 0 {
				_ = src.SetReadDeadline(time.Now().Add(lateTime))
			}
			_, err := in.Peek(1)
			_ = src.SetReadDeadline(time.Time{})
			if errors.Is(err, os.ErrDeadlineExceeded) {
				release(1 + mostLate)
				continue
			}
		}
		f, kind, err := l.next(in, offload)
		if err != nil {
			return
		}
		if kind != 0 || !l.bad.Load() {
			release(1 + mostLate) // in front of what may be the last in its format
			_, _ = out.Write(f)
			offload = offload || kind == l.last
			continue
		}
		switch fate := l.dice.IntN(100); {
		case fate < lostFrames:
			l.lost.Add(1)
		case fate < lostFrames+lateFrames:
			l.late.Add(1)
			late = append(late, &lateFrame{f, 2 + l.dice.IntN(mostLate)})
		default:
			release(1)
			_, _ = out.Write(f)
		}
	}
}

// next reads a frame with what is in front of it, and says which message of the
// negotiation it is, if it is one.
func (l *lane) next(in *bufio.Reader, offload bool) (f []byte, kind byte, err error) {
	const prefix, offloadPrefix, header = 2, 4, 10
	b, err := in.Peek(offloadPrefix)
	if err != nil {
		return nil, 0, err
	}
	size, frame := prefix+int(binary.LittleEndian.Uint16(b)), prefix
	if offload {
		size, frame = offloadPrefix+int(binary.LittleEndian.Uint32(b)), offloadPrefix+header
	}
	f = make([]byte, size)
	if _, err := io.ReadFull(in, f); err != nil {
		return nil, 0, err
	}
	l.frames.Add(1)
	if offload && f[offloadPrefix+1] != 0 { // gso_type
		l.large.Add(1)
	}
	if e := f[frame:]; len(e) > 19 && string(e[12:18]) == "\x88\xb5gnof" {
		kind = e[19]
	}
	return f, kind, nil
}
