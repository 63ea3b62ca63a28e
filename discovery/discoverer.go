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
	"time"
)

// drainTimeout is how long SignalReady waits for the guest to take READY and
// close. A guest that keeps the connection open delays no more than this.
const drainTimeout = time.Second

// A Discoverer is the host's side of the handshake. It keeps nothing from one
// call to the next, and its methods may be called concurrently; the fields are
// not to be changed meanwhile.
type Discoverer struct {
	// Source lists the candidates. Required.
	Source Source

	// Protocol is what the guest speaks. Required.
	Protocol Protocol

	// Match says whether a peer is wanted, before it is dialled. It must not
	// block. nil: any is; the first that answers is taken, so a host of several
	// VMs tells them apart here.
	Match func(Peer) bool

	// Interval is the time from one listing of the Source to the next, and so
	// between two attempts on one peer. 0: 1 s.
	Interval time.Duration

	// AttemptTimeout bounds one attempt on one peer, from dialling it to its
	// last byte, and one listing. 0: 5 s, negative: no bound.
	AttemptTimeout time.Duration

	// Logger is told what changes: an error of the Source, and what comes of an
	// attempt on each peer. nil: silent.
	Logger *slog.Logger
}

// Discover looks for a peer that sends the signature, until it has found one or
// ctx ends. Peers are probed side by side, each at most once at a time, and again
// at every interval: a wrong signature now may be the right one a second later.
//
// The error is permanent (it has a method Permanent() bool that returns true) if
// a field is missing or the Source says that it can never work. Otherwise ctx has
// ended, and the error wraps that of ctx and tells what went wrong last, as a
// [*MismatchError] if that was it. It is not permanent then, whatever the dial of
// one peer says of itself: the next listing may have another.
func (d *Discoverer) Discover(ctx context.Context) (Peer, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(ctx)
	s := newSearch(d)
	p, err := s.run(run)
	cancel()
	s.wg.Wait()
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	return p, nil
}

// SignalReady tells p that the host listens on the data port. Before it says so
// it checks the signature again, on the same connection: since Discover, the
// agent may have gone and something else have taken the port. All of it has to
// happen within AttemptTimeout.
//
// A nil error means that READY was sent, not that the guest acted on it: that
// shows in the data connection. A [*MismatchError] means that p should be
// discovered again. The error is permanent if a field is missing, or if that of
// p's Dial is.
func (d *Discoverer) SignalReady(ctx context.Context, p Peer) error {
	if err := d.check(); err != nil {
		return err
	}
	err := d.attempt(ctx, p, func(ctx context.Context, conn net.Conn) error {
		if _, err := io.WriteString(conn, readySignal); err != nil {
			return fmt.Errorf("peer %s: write %s: %w", p.ID(), readySignal, cause(ctx, err))
		}
		// Closing now could reset the connection, on some transports also what
		// the guest has not read yet. So the guest closes first, and if it does
		// not, it had the time to read five bytes.
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		if conn.SetReadDeadline(time.Now().Add(drainTimeout)) == nil {
			_, _ = io.CopyN(io.Discard, conn, shown)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	return nil
}

// attempt dials p, reads the signature and hands the connection to then, with the
// context that ends it. When it returns, the connection is closed.
func (d *Discoverer) attempt(ctx context.Context, p Peer, then func(context.Context, net.Conn) error) error {
	ctx, cancel := withTimeout(ctx, d.AttemptTimeout)
	defer cancel()
	conn, err := p.Dial(ctx, d.Protocol.HandshakePort)
	if err != nil {
		return fmt.Errorf("peer %s: dial port %d: %w", p.ID(), d.Protocol.HandshakePort, err)
	}
	defer func() { _ = conn.Close() }()
	defer bind(ctx, conn)() // also ends a dial that came too late
	if err := readSignature(ctx, p.ID(), conn, d.Protocol.Signature); err != nil {
		return err
	}
	return then(ctx, conn)
}

func (d *Discoverer) check() error {
	var what string
	switch {
	case d.Source == nil:
		what = "Discoverer.Source is nil: say where the VMs are, such as HyperV()"
	case d.Protocol.Signature == "":
		what = "Protocol.Signature is empty: take a preset such as RancherDesktop"
	case d.Protocol.HandshakePort == 0:
		what = "Protocol.HandshakePort is 0: say on which port the guest listens"
	case d.Protocol.DataPort == 0:
		what = "Protocol.DataPort is 0: say on which port the host listens"
	case d.Interval < 0:
		what = "Discoverer.Interval is negative: 0 means one second"
	default:
		return nil
	}
	return permanentError{errors.New("discovery: " + what)}
}
