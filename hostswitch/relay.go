// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
)

const (
	// relayBuffer is what one read takes at most.
	relayBuffer = 64 << 10
	// relayDrain bounds how long one direction goes on after the other found
	// that its destination takes nothing any more.
	relayDrain = 10 * time.Second
)

// relay joins two connections until both directions have ended or ctx has, and
// closes both.
func (s *Switch) relay(ctx context.Context, guest *netstack.Conn, host net.Conn) {
	s.relays.Add(1)
	defer s.relays.Add(-1)
	// A half that waits for the host's end does not notice that the guest's is
	// gone.
	defer onDone(ctx, func() {
		abort(guest)
		abort(host)
	})()
	var toHost, toGuest half
	up := make(chan struct{})
	go func() {
		defer close(up)
		s.relayHalf(host, guest, &toHost, &toGuest)
	}()
	s.relayHalf(guest, host, &toGuest, &toHost)
	<-up
	_ = guest.Close()
	_ = host.Close()
}

// A half is what one direction has to tell the other.
type half struct {
	writing atomic.Bool
	reset   atomic.Bool // a write found the connection reset
}

// write is dst.Write, with a note of what came of it.
func (h *half) write(dst net.Conn, b []byte) error {
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

// relayHalf carries one direction to its end, and the end across. A direction
// that broke off must not look complete to its destination: it is reset.
func (s *Switch) relayHalf(dst, src net.Conn, own, back *half) {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			if own.write(dst, (*buf)[:n]) != nil {
				// dst takes nothing any more, but may have sent an answer that
				// the other direction is still to deliver.
				_ = dst.SetReadDeadline(time.Now().Add(relayDrain))
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && !back.foundReset():
			if c, ok := dst.(interface{ CloseWrite() error }); !ok || c.CloseWrite() != nil {
				_ = dst.SetReadDeadline(time.Now().Add(relayDrain))
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
