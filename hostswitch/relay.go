// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

const (
	// idleBuffer is what a direction holds that waits after it had little to carry,
	// and slowBuffer what one has that finds no large buffer.
	idleBuffer = 4 << 10
	slowBuffer = 16 << 10
	// relayDrain is how long one direction waits for its source to say more,
	// after the other found that it takes nothing any more.
	relayDrain = 10 * time.Second
)

// relay joins two connections until both directions have ended or ctx has, and
// closes both.
func (s *Switch) relay(ctx context.Context, of account, guest *netstack.Conn, host net.Conn) {
	cut := func() {
		abort(guest)
		abort(host)
	}
	defer onDone(ctx, cut)()
	// A half that waits for the host's end does not notice that the guest's is gone.
	defer onDone(guest.Broken(), cut)()
	var toHost, toGuest half
	var up sync.WaitGroup
	up.Go(func() { s.relayHalf(of, host, guest, &toHost, &toGuest) })
	s.relayHalf(of, guest, host, &toGuest, &toHost)
	up.Wait()
	_ = guest.Close()
	_ = host.Close()
}

// A half is what one direction has to tell the other.
type half struct {
	writing  atomic.Bool
	reset    atomic.Bool // a write found the connection reset
	draining atomic.Bool // the source takes nothing any more: read it only while it has something to say
}

// write is dst.Write, with a note of what came of it.
func (h *half) write(dst io.Writer, b []byte) error {
	h.writing.Store(true)
	_, err := dst.Write(b)
	if errors.Is(err, errReset) {
		h.reset.Store(true)
	}
	h.writing.Store(false)
	return err
}

// foundReset reports whether the end of what the other side of h sends is a reset
// in truth: Linux tells of one once, and if a write is told, a read sees a clean
// end. A write under way is about to know; one that does not come back soon is
// waiting for a peer that is alive.
func (h *half) foundReset() bool {
	for range 100 {
		if !h.writing.Load() {
			break
		}
		<-time.After(time.Millisecond)
	}
	return h.reset.Load()
}

// drain bounds how long h waits for its source to say more.
func (h *half) drain(src net.Conn) {
	h.draining.Store(true)
	_ = src.SetReadDeadline(time.Now().Add(relayDrain))
}

// relayHalf carries one direction to its end, and the end across. A direction
// that broke off must not look complete to its destination: it is reset.
func (s *Switch) relayHalf(of account, dst, src net.Conn, own, back *half) {
	from, to := rawio.NewReader(src), rawio.NewWriter(dst)
	small := make([]byte, idleBuffer)
	var large *[]byte
	giveBack := func() {
		if large != nil {
			s.buffers.Put(large)
			s.large.give(of)
			large = nil
		}
	}
	defer giveBack()
	for {
		buf := small
		if large != nil {
			buf = *large
		}
		n, err := from.Read(buf)
		if n > 0 {
			if own.write(to, buf[:n]) != nil {
				// dst takes nothing any more, but may have sent an answer that
				// the other direction is still to deliver.
				back.drain(dst)
				return
			}
			if own.draining.Load() {
				own.drain(src)
			}
		}
		switch {
		case err == nil && large == nil && n == len(small):
			if s.large.take(of) {
				large = s.buffers.Get().(*[]byte)
			} else if len(small) < slowBuffer {
				small = make([]byte, slowBuffer)
			}
		case err == nil && n < idleBuffer:
			giveBack()
			if len(small) > idleBuffer {
				small = make([]byte, idleBuffer)
			}
		case err == nil:
		case errors.Is(err, io.EOF) && !back.foundReset():
			if c, ok := dst.(interface{ CloseWrite() error }); !ok || c.CloseWrite() != nil {
				back.drain(dst)
			}
			return
		default:
			abort(dst)
			abort(src)
			return
		}
	}
}

// abort closes a connection with a reset where it has one.
func abort(c net.Conn) {
	switch c := c.(type) {
	case *netstack.Conn:
		_ = c.Abort()
	case *net.TCPConn:
		_ = c.SetLinger(0)
		_ = c.Close()
	default:
		_ = c.Close()
	}
}

// onDone calls f when ctx ends, unless stop was called before; stop waits for an
// f under way.
func onDone(ctx context.Context, f func()) (stop func()) {
	done := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !unregister() {
			<-done
		}
	}
}
