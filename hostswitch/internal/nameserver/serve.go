// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxPipelined = 16          // answers that one TCP client has not taken yet
	packetWrite  = time.Second // for a datagram to leave
	maxRetryWait = time.Second // between failing reads or accepts
)

// ServePacket answers the datagrams of pc, over which it takes ownership, until
// ctx ends. It then closes pc, waits for the queries under way, and returns nil.
// Errors of a read are survived; it returns one, which wraps [net.ErrClosed],
// only if pc was closed by someone else.
func (s *Server) ServePacket(ctx context.Context, pc net.PacketConn) error {
	ctx, cancel := context.WithCancel(ctx)
	closed := closeAtEnd(ctx, pc)
	var wg sync.WaitGroup
	defer func() { cancel(); closed(); wg.Wait() }()

	send := func(resp []byte, to net.Addr) {
		_ = pc.SetWriteDeadline(time.Now().Add(packetWrite))
		if _, err := pc.WriteTo(resp, to); err != nil && ctx.Err() == nil {
			s.log.Debug("cannot send a DNS answer", "to", to, "err", err)
		}
	}
	buf := make([]byte, dns.MaxMsgSize)
	var retry backoff
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if end, err := s.readError(ctx, &retry, "read", err); end {
				return err
			}
			continue
		}
		retry = 0
		resp, r := s.answerLocal("udp", buf[:n])
		if r == nil {
			if resp != nil {
				send(resp, from)
			}
			continue
		}
		release, ok := s.share.acquire(ctx, s.slots, sourceOf(from), false)
		if !ok {
			s.dropped.Add(1)
			continue
		}
		r.wire = slices.Clone(r.wire)
		wg.Go(func() {
			defer release()
			send(s.forward(ctx, r), from)
		})
	}
}

// ServeStream answers the clients that ln accepts, over which it takes
// ownership, until ctx ends. It then closes ln and every connection, waits, and
// returns nil. Queries of one connection are answered as they become ready
// (RFC 7766, section 6.2.1.1). Errors as in [Server.ServePacket].
func (s *Server) ServeStream(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	closed := closeAtEnd(ctx, ln)
	var wg sync.WaitGroup
	defer func() { cancel(); closed(); wg.Wait() }()

	streams, share := make(chan struct{}, s.cfg.MaxStreams), newQuotas(s.cfg.MaxStreamsPerSource)
	var retry backoff
	for {
		conn, err := ln.Accept()
		if err != nil {
			if end, err := s.readError(ctx, &retry, "accept", err); end {
				return err
			}
			continue
		}
		retry = 0
		source := sourceOf(conn.RemoteAddr())
		release, ok := share.acquire(ctx, streams, source, false)
		if !ok {
			s.dropped.Add(1)
			_ = conn.Close()
			continue
		}
		wg.Go(func() {
			defer release()
			s.serveConn(ctx, conn, source)
		})
	}
}

// serveConn serves one client until it leaves, is too slow, or ctx ends. Queries
// that were read get their answers even if the client sends no more.
func (s *Server) serveConn(ctx context.Context, conn net.Conn, source netip.Addr) {
	ctx, cancel := context.WithCancel(ctx)
	closed := closeAtEnd(ctx, conn)
	var wg sync.WaitGroup
	defer func() { wg.Wait(); cancel(); closed() }()

	var mu sync.Mutex // held to write
	send := func(resp []byte) {
		mu.Lock()
		defer mu.Unlock()
		_ = conn.SetWriteDeadline(s.idleDeadline())
		if _, err := conn.Write(framed(resp)); err != nil {
			cancel() // the client is gone, or does not read
		}
	}
	pipeline := make(chan struct{}, maxPipelined)
	for {
		_ = conn.SetReadDeadline(s.idleDeadline())
		query, err := readMessage(conn, maxQuery)
		if err != nil {
			return
		}
		select {
		case pipeline <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-pipeline }()
			if resp := s.answer(ctx, "tcp", source, query); resp != nil {
				send(resp)
			} else {
				cancel() // it speaks no DNS
			}
		})
	}
}

func (s *Server) idleDeadline() time.Time {
	if s.cfg.IdleTimeout < 0 {
		return time.Time{}
	}
	return time.Now().Add(s.cfg.IdleTimeout)
}

// framed puts the length before a message: one Write, hence mostly one segment.
func framed(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))), msg...)
}

// readMessage reads a message behind its length (RFC 1035, section 4.2.2).
func readMessage(r io.Reader, limit uint16) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(size[:])
	if n < headerLen || n > limit {
		return nil, fmt.Errorf("nameserver: a message of %d bytes", n)
	}
	msg := make([]byte, n)
	_, err := io.ReadFull(r, msg)
	return msg, err
}

type backoff time.Duration

// readError decides whether err ends a Serve method, and with what error. If not
// it waits, so that an error that stays does not spin.
func (s *Server) readError(ctx context.Context, wait *backoff, op string, err error) (bool, error) {
	switch {
	case ctx.Err() != nil:
		return true, nil
	case errors.Is(err, net.ErrClosed):
		return true, fmt.Errorf("nameserver: %s: %w", op, err)
	case errors.Is(err, io.EOF): // what a closed socket of netstack says
		return true, fmt.Errorf("nameserver: %s: %w (%w)", op, net.ErrClosed, err)
	}
	s.log.Debug("DNS socket failed, trying again", "op", op, "err", err)
	*wait = min(max(2**wait, backoff(time.Millisecond)), backoff(maxRetryWait))
	t := time.NewTimer(time.Duration(*wait))
	defer t.Stop()
	select {
	case <-t.C:
		return false, nil
	case <-ctx.Done():
		return true, nil
	}
}

// closeAtEnd closes c when ctx ends. The function it returns waits for that, so
// it must be called after the end of ctx.
func closeAtEnd(ctx context.Context, c io.Closer) func() {
	done := make(chan struct{})
	context.AfterFunc(ctx, func() { defer close(done); _ = c.Close() })
	return func() { <-done }
}
