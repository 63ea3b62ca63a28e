// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxTurns is how many peers are served at a time; further ones wait to be
// accepted.
const maxTurns = 32

// A Responder is the guest's side of the handshake. It keeps nothing from one
// call to the next.
type Responder struct {
	// Protocol is what the guest speaks. Its Signature is required; the ports are
	// the caller's to listen on and to dial.
	Protocol Protocol

	// Filter says who may take part: nil lets a peer in, an error says why not.
	// It must not block. Required, since whoever says READY directs the guest's
	// network: trust CID 2, the host, and not what runs inside the VM.
	Filter interface{ Allow(c net.Conn) error }

	// Timeout bounds the turn of each peer. 0: 5 s, negative: no bound.
	Timeout time.Duration

	// Logger is told of peers that are refused, at most one line in 10 s, and at
	// debug level of every turn. nil: silent.
	Logger *slog.Logger
}

// WaitReady answers on ln until a peer has said READY, and then returns nil. A
// peer that says something else, nothing, or goes away has had its turn; the
// next is served beside it.
//
// It owns ln: when it returns, ln, all connections and all goroutines are gone.
// When ctx ends, the error wraps that of ctx; when ln cannot accept any more, it
// wraps that error. A missing field is a permanent error (it has a method
// Permanent() bool that returns true).
func (r *Responder) WaitReady(ctx context.Context, ln net.Listener) error {
	defer func() { _ = ln.Close() }()
	switch {
	case r.Filter == nil:
		return permanentError{errors.New("discovery: Responder.Filter is nil: say whom to trust, such as socketbridge.AllowCID(2)")}
	case r.Protocol.Signature == "":
		return permanentError{errors.New("discovery: Protocol.Signature is empty: take a preset such as RancherDesktop")}
	}
	run, stop := context.WithCancel(ctx)
	release := closeWhenDone(run, ln)
	log := logger(r.Logger)
	var (
		ready   atomic.Bool
		refused throttle
		turns   sync.WaitGroup
		slots   = make(chan struct{}, maxTurns)
	)
	err := accept(run, ln, log, func(conn net.Conn) {
		if err := r.Filter.Allow(conn); err != nil {
			_ = conn.Close()
			refused.log(log, "discovery: refused a peer", "peer", conn.RemoteAddr(), "error", err)
			return
		}
		slots <- struct{}{} // every turn ends, at the latest with run
		turns.Go(func() {
			err := r.turn(run, conn)
			log.Debug("discovery: a peer had its turn", "peer", conn.RemoteAddr(), "error", err)
			<-slots
			if err == nil {
				ready.Store(true)
				stop()
			}
		})
	})
	stop()
	turns.Wait()
	release()
	switch {
	case ready.Load():
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("discovery: no %s: %w", readySignal, ctx.Err())
	default:
		return fmt.Errorf("discovery: no %s: accept: %w", readySignal, err)
	}
}

// turn serves one peer. nil means that it said READY.
func (r *Responder) turn(ctx context.Context, conn net.Conn) error {
	ctx, cancel := withTimeout(ctx, r.Timeout)
	defer cancel()
	defer func() { _ = conn.Close() }()
	defer bind(ctx, conn)()
	// A host need not read the signature: it may have sent READY and closed. So
	// what comes of the write is no reason not to read.
	_, _ = io.WriteString(conn, r.Protocol.Signature)
	var buf [len(readySignal)]byte
	n, err := io.ReadFull(conn, buf[:])
	switch {
	case string(buf[:n]) == readySignal:
		return nil
	case err != nil:
		return fmt.Errorf("after %q: %w", buf[:n], cause(ctx, err))
	default:
		return fmt.Errorf("it sent %q", buf[:n])
	}
}
