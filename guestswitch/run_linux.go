// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

// session is one run, from the dialled connection on.
type session struct {
	g    *Guest
	tap  *tap
	conn net.Conn
	mtu  int       // Tap.MTU
	dhcp *dhcpConn // nil unless the client is ours
	log  *slog.Logger

	sendMu  sync.Mutex // also held while a frame to the host is traced
	toConn  io.Writer
	sendErr error
	first   []byte // the offer, until it was sent
	offload bool   // the format of what is sent; only toHost changes it
	offer   *offer // nil: none is made

	trace             func(out bool, frame []byte) // Guest.Trace as the run began
	traceIn, traceOut tracer

	events     sync.Mutex // also held while OnEvent and report are called
	report     func(error)
	configured bool
	heard      bool
	ready      bool
}

// run creates the tap first: its name is the lock that keeps a second agent from
// dialling, which would make the host give up the connection of the first.
func (g *Guest) run(ctx context.Context, report func(error)) error {
	c, err := g.config()
	if err != nil {
		return err
	}
	t, err := g.newTap(c)
	if err != nil {
		return err
	}
	defer t.close()

	if err := g.handshake(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	conn, err := g.Dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("guestswitch: dial the host: %w", err)
	}
	defer func() { _ = conn.Close() }()
	rawio.Widen(conn)

	s := &session{g: g, tap: t, conn: conn, toConn: rawio.NewWriter(conn), mtu: c.MTU, trace: g.Trace, log: g.Logger, report: report}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if g.Framing == FramingAuto {
		s.offer = newOffer(packet.MAC(c.MAC))
		s.first = s.offer.message(frame.Offer)
	}
	switch g.DHCP.(type) {
	case nil, builtinDHCP, scriptDHCP:
		s.dhcp = newDHCPConn(packet.MAC(c.MAC), s.sendFrame)
	}
	if err := g.step("bring up "+c.Name, t.up); err != nil {
		return err
	}
	s.notify(Event{Kind: Connected})
	if err = s.carry(ctx); err != nil {
		s.notify(Event{Kind: Lost, Err: err})
	}
	return err
}

// handshake waits until the host is ready for the data connection.
func (g *Guest) handshake(ctx context.Context) error {
	if g.Responder == nil {
		return nil
	}
	return g.step("shake hands with the host", func() error {
		ln, err := g.Listen(ctx)
		if err != nil {
			return err
		}
		return g.Responder.WaitReady(ctx, ln)
	})
}

// carry moves frames both ways while the interface is configured and kept so.
// Closing the connection and the tap ends whatever read or write goes on.
func (s *session) carry(parent context.Context) error {
	ctx, end := context.WithCancelCause(parent)
	defer end(nil)
	var relays sync.WaitGroup
	relays.Go(func() { end(s.toHost()) })
	relays.Go(func() { end(s.toTap()) })

	// A host that does not read must not hold up the end: what is still to be
	// sent, the release of the lease, has little time.
	relays.Add(1)
	context.AfterFunc(ctx, func() {
		defer relays.Done()
		if s.conn.SetWriteDeadline(time.Now().Add(releaseTimeout)) != nil {
			_ = s.conn.Close()
		}
	})
	if err := s.configure(ctx); err != nil {
		end(fmt.Errorf("guestswitch: %w", err))
	}
	<-ctx.Done()
	_ = s.conn.Close()
	_ = s.tap.file.Close()
	relays.Wait()
	if parent.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// configure does what Guest.DHCP says, and has undone it, as far as it does not
// go with the tap, when it returns. Until then frames are carried.
func (s *session) configure(ctx context.Context) error {
	switch d := s.g.DHCP.(type) {
	case nil, builtinDHCP:
		return s.lease(ctx, s.kernel().act)
	case scriptDHCP:
		return s.lease(ctx, s.script(d.path))
	case execDHCP:
		return s.supervise(ctx, d.argv)
	case staticDHCP:
		k := s.kernel()
		defer func() { s.warn("undo the configuration", k.clear()) }()
		if err := s.takeMTU(d.lease); err != nil {
			return err
		}
		if err := k.set(d.lease); err != nil {
			return err
		}
		s.notify(Event{Kind: Configured, Lease: d.lease})
	case noDHCP:
		s.notify(Event{Kind: Configured})
	}
	<-ctx.Done()
	return nil
}

func (s *session) kernel() *kernel {
	return &kernel{tap: s.tap, resolv: resolvConf{path: s.g.ResolvConf}, try: s.g.try}
}

// lease keeps a lease by asking on the data connection, and gives it back.
func (s *session) lease(ctx context.Context, act action) error {
	nc, err := nclient4.NewWithConn(s.dhcp, s.dhcp.mac[:], nclient4.WithTimeout(firstTimeout), nclient4.WithRetry(tries))
	if err != nil {
		return fmt.Errorf("DHCP client: %w", err)
	}
	defer func() { _ = nc.Close() }()
	c := &client{nc: nc, act: act, mtu: s.takeMTU, notify: s.notify, warn: s.warn}
	if last := c.run(ctx); last != nil && s.conn.SetWriteDeadline(time.Now().Add(releaseTimeout)) == nil {
		c.release(last)
	}
	c.do(context.WithoutCancel(ctx), "deconfig", nil)
	return nil
}

// takeMTU sets the MTU of a lease, unless the Guest has its own.
func (s *session) takeMTU(l Lease) error {
	if s.mtu != 0 {
		return nil
	}
	return s.g.try("set the MTU of the lease", func() error { return s.tap.setMTU(l.MTU) })
}

// notify hands out one event at a time, and with it what a supervisor is told.
func (s *session) notify(e Event) {
	s.events.Lock()
	defer s.events.Unlock()
	level := slog.LevelInfo
	switch e.Kind {
	case Configured:
		s.configured = true
	case Heard:
		s.heard = true
	case Failed:
		s.ready, level = false, slog.LevelWarn
	case LeaseLost:
		s.configured, s.ready, level = false, false, slog.LevelWarn
	}
	if e.Kind != Lost { // that error is returned
		s.log.Log(context.Background(), level, "guestswitch", "event", e)
	}
	if s.g.OnEvent != nil {
		s.g.OnEvent(e)
	}
	switch e.Kind {
	case Failed, LeaseLost:
		s.report(e.Err)
	case Configured, Heard, Renewed:
		if s.configured && s.heard && !s.ready {
			s.ready = true
			s.report(nil)
		}
	}
}

// warn logs what could not be done and changes nothing else.
func (s *session) warn(what string, err error) {
	if err != nil {
		s.log.Warn("guestswitch: "+what, "error", err)
	}
}
