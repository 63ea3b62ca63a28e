// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// Defaults and fixed times of a [Host].
const (
	defaultConnectTimeout = 10 * time.Second
	defaultStallTimeout   = 30 * time.Second
	waitingEvery          = 30 * time.Second
	shortConnection       = 5 * time.Second
	looks                 = 4 // for a stall, in a StallTimeout
	tellShort             = 3 // short connections in a row, before that is an event of its own
	maxPause              = 30 * time.Second
)

// A Host finds its VM, shakes hands with it, carries its frames, and does so
// again whenever the guest is lost. It is the mirror of guestswitch.Guest, and a
// lifecycle.Reporter.
//
// Set the fields before Run; a Host may run again when Run has returned.
//
// A guest's connection is never cut on suspicion, because released guests do not
// come back by themselves: a stall is an event. The connection is closed when the
// guest makes a new one and sends a frame on it, or answers the handshake again.
// Forwards and leases outlive connections.
type Host struct {
	// Config of the network; Run makes the Switch and closes it. If
	// Config.OnEvent is nil, OnEvent is told of the Switch's events too, save
	// Connected and Lost, which it has from the Host itself.
	Config Config
	// Switch is used instead of Config if it is not nil. Run does not close it.
	Switch *Switch
	// Discoverer finds the VM. Required. Several Hosts in one process are told
	// apart by its Match.
	Discoverer *discovery.Discoverer
	// ConnectTimeout is how long the guest has for its data connection after
	// READY, before hands are shaken again. 0: 10 s, negative: for ever.
	ConnectTimeout time.Duration
	// StallTimeout is how long frames may go out with none coming in, before
	// that is an event and the handshake is tried beside the connection. 0: 30 s,
	// negative: for ever.
	StallTimeout time.Duration
	// ReportEvery is how often a Snapshot is logged. 0 and negative: never.
	ReportEvery time.Duration
	// OnGuest runs beside the connection, from the handshake until another VM is
	// found or Run ends, which ends its context and waits for it: socket bridges
	// and the like. An error is an event, and it is called again after a pause;
	// nil is the end.
	OnGuest func(ctx context.Context, p discovery.Peer) error
	// OnEvent is as Config.OnEvent.
	OnEvent func(Event)
	// Logger is as Config.Logger.
	Logger *slog.Logger

	running atomic.Bool
	times   hostTimes
}

// hostTimes is what only the tests of a Host set: the clock that it goes by, and
// its pauses. nil: the real ones.
type hostTimes struct {
	now   func() time.Time
	after func(time.Duration) <-chan time.Time
	pause func(failures int) time.Duration
}

func (t hostTimes) orReal() hostTimes {
	if t.now == nil {
		t.now, t.after = time.Now, time.After
	}
	if t.pause == nil {
		t.pause = pause
	}
	return t
}

// ErrRunning is returned by a Run beside another of the same Host.
var ErrRunning = errors.New("hostswitch: the host runs already")

// A permanentError will not go away by trying again; lifecycle looks for the
// method.
type permanentError struct{ error }

// Permanent reports true.
func (permanentError) Permanent() bool { return true }

// Unwrap returns the error.
func (e permanentError) Unwrap() error { return e.error }

// Run is RunReporting for who does not want to know.
func (h *Host) Run(ctx context.Context) error {
	return h.RunReporting(ctx, func(error) {})
}

// RunReporting finds the VM and carries its frames until ctx ends, and then
// returns nil. report is told nil at the first valid frame of a connection, and
// the reason when frames no longer come.
//
// An error of the configuration, and [ErrClosed] when Switch was closed, is
// permanent: it has a method Permanent() bool that says so. A port of
// Config.Forwards that somebody else has is not.
func (h *Host) RunReporting(ctx context.Context, report func(error)) (err error) {
	if h.Discoverer == nil {
		return permanentError{errors.New("hostswitch: Host.Discoverer: required, to find the VM")}
	}
	if !h.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer h.running.Store(false)

	r := &hostRun{Host: h, hostTimes: h.times.orReal(), report: report, log: h.Logger, sw: h.Switch}
	r.connectTimeout = cmp.Or(h.ConnectTimeout, defaultConnectTimeout)
	r.stallTimeout = cmp.Or(h.StallTimeout, defaultStallTimeout)
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.events.handler = h.OnEvent // before New, which tells of its first forwards
	defer r.events.close()       // after Close, which tells of its last
	if r.sw == nil {
		if r.sw, err = r.makeSwitch(); err != nil {
			return err
		}
		defer r.sw.Close() //nolint:errcheck // it returns nil
	}
	r.events.snapshot = r.sw.Snapshot

	ctx, cancel := context.WithCancel(ctx)
	var reports sync.WaitGroup
	defer reports.Wait()
	defer cancel()
	if h.ReportEvery > 0 {
		reports.Go(func() { r.logSnapshots(ctx) })
	}
	return r.loop(ctx)
}
