// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// What a client asks the server for in the first byte; eight with a count follow.
const (
	upload   = 'U' // take so many bytes, then answer with one
	download = 'D' // send so many bytes
	echo     = 'E' // send each byte back
)

const block = 256 << 10

type server struct {
	address address
	ln      net.Listener
	wg      sync.WaitGroup
}

func serve(ctx context.Context, at address) (*server, error) {
	ln, err := at.listen(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{address: address(at.network() + ":" + ln.Addr().String()), ln: ln}
	s.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer conn.Close() //nolint:errcheck // the client tells what went wrong
				_ = answer(conn)
			})
		}
	})
	return s, nil
}

// close waits for the clients too, which have gone.
func (s *server) close() {
	_ = s.ln.Close()
	s.wg.Wait()
}

func answer(conn net.Conn) error {
	var head [9]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint64(head[1:])
	switch head[0] {
	case upload:
		if err := take(conn, n); err != nil {
			return err
		}
		_, err := conn.Write(head[:1])
		return err
	case download:
		return give(conn, n)
	default:
		for {
			if _, err := io.ReadFull(conn, head[:1]); err != nil {
				return err
			}
			if _, err := conn.Write(head[:1]); err != nil {
				return err
			}
		}
	}
}

func give(conn net.Conn, n uint64) error {
	buf := make([]byte, block)
	for n > 0 {
		m, err := conn.Write(buf[:min(n, block)])
		if err != nil {
			return err
		}
		n -= uint64(m)
	}
	return nil
}

func take(conn net.Conn, n uint64) error {
	buf := make([]byte, block)
	for n > 0 {
		m, err := conn.Read(buf)
		if err != nil {
			return err
		}
		n -= uint64(m)
	}
	return nil
}

func ask(ctx context.Context, at address, what byte, n uint64) (net.Conn, error) {
	conn, err := at.dial(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	err = conn.SetDeadline(deadline)
	if err == nil {
		_, err = conn.Write(binary.BigEndian.AppendUint64([]byte{what}, n))
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// transfer returns how long n bytes took, and what that took of the processor.
func transfer(ctx context.Context, p *process, what byte, n uint64) (time.Duration, time.Duration, error) {
	before, begin := p.cpu(), time.Now()
	conn, err := ask(ctx, p.listen, what, n)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close() //nolint:errcheck // everything has come
	if what == upload {
		if err := give(conn, n); err != nil {
			return 0, 0, err
		}
		n = 1 // the answer
	}
	if err := take(conn, n); err != nil {
		return 0, 0, err
	}
	return time.Since(begin), p.cpu() - before, nil
}

// roundTrips returns the microseconds of each.
func roundTrips(ctx context.Context, at address, n int) ([]float64, error) {
	conn, err := ask(ctx, at, echo, 0)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // everything has come
	times := make([]float64, n)
	for i := range times {
		begin := time.Now()
		if err := echoed(conn); err != nil {
			return nil, err
		}
		times[i] = float64(time.Since(begin).Nanoseconds()) / 1e3
	}
	return times, nil
}

func echoed(conn net.Conn) error {
	b := []byte{'x'}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, b)
	return err
}

// trip is one round trip on a connection that nothing was asked for yet.
func trip(conn net.Conn) (net.Conn, error) {
	if _, err := conn.Write(binary.BigEndian.AppendUint64([]byte{echo}, 0)); err != nil {
		return nil, err
	}
	return conn, echoed(conn)
}

// connections returns how many connections with one round trip four clients get
// through in a second.
func connections(ctx context.Context, at address, n int) (float64, error) {
	var left atomic.Int64
	left.Store(int64(n))
	errs := make(chan error, 4)
	begin := time.Now()
	for range cap(errs) {
		go func() {
			for left.Add(-1) >= 0 {
				conn, err := ask(ctx, at, echo, 0)
				if err == nil {
					err = echoed(conn)
					_ = conn.Close()
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var err error
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	return float64(n) / time.Since(begin).Seconds(), err
}

// idle returns the KB of the relay for each of n connections that have been used
// and are at rest.
func idle(ctx context.Context, p *process, n int) (float64, error) {
	before, err := p.rss()
	if err != nil {
		return 0, err
	}
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range n {
		conn, err := ask(ctx, p.listen, echo, 0)
		if err != nil {
			return 0, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, conn)
		if err := echoed(conn); err != nil {
			return 0, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	after, err := p.rss()
	return (after - before) / float64(n), err
}
