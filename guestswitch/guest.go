// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// Defaults of [Tap].
const (
	DefaultName = "eth0"
	DefaultMTU  = 1500
)

// What Run returns, apart from errors of the connection and of the system.
var (
	// ErrRunning is returned by a second Run of a Guest that runs already.
	ErrRunning = errors.New("guestswitch: this Guest is running already")
	// ErrTapExists is returned when the interface's name is taken in its
	// namespace, by another Guest for instance. Nothing was touched.
	ErrTapExists = errors.New("an interface of that name exists, or another Guest runs there: set another Tap.Name or Tap.NetNS")
	// ErrTapLost is returned when the interface was deleted under a running Guest.
	ErrTapLost = errors.New("the tap interface is gone")
)

// A Guest carries frames between a tap interface and the host. Its fields are
// set before the first run and not changed during one. It must not be copied
// after first use. One run lasts as long as one data connection.
type Guest struct {
	// Responder shakes hands with the host before Dial, on the listener that
	// Listen opens, which it owns. Listen is called in the namespaces of Run's
	// caller, too. nil: no handshake.
	Responder *discovery.Responder
	Listen    func(ctx context.Context) (net.Listener, error)

	// Dial opens the data connection. It is called once per run, in the
	// goroutine and so the namespaces of Run's caller, and has to end when its
	// context does. The connection is closed by the run.
	Dial func(ctx context.Context) (net.Conn, error)

	// Tap is the interface that the run creates.
	Tap Tap

	// Framing is how frames stand on the connection. The zero value uses offload
	// if the host does.
	Framing Framing

	// DHCP configures the interface. nil: [BuiltinDHCP].
	DHCP DHCP

	// ResolvConf is a file that gets the name servers and the search list of
	// the lease, with [BuiltinDHCP] and [StaticDHCP]. It is replaced in one
	// step, and at the end is again what it was. Empty: none is touched.
	ResolvConf string

	// Trace is called with each frame that is carried, whole; out is to the host,
	// from the tap or the DHCP client. The calls for one direction come one at a
	// time, in the order of the connection, and hold that direction up; those for
	// the other may come meanwhile. The frame is only valid during the call. Frames
	// in offload format come as those that they stand for, with their checksums. It
	// is read when a run begins: use [Guest.SetTrace] while one goes on.
	Trace func(out bool, frame []byte)

	// OnEvent is told what happens, one event at a time, by the goroutine that
	// saw it: it should return soon, and must not wait for the run to end.
	OnEvent func(Event)

	// Logger gets the events, and what scripts and clients print. nil: silent.
	Logger *slog.Logger

	running atomic.Bool
	trace   atomic.Pointer[func(out bool, frame []byte)]
	stats   counters
	fault   func(step string) error // tests only: an error instead of the step
}

// Framing is how frames stand on the data connection.
type Framing int

const (
	// FramingAuto offers the offload format to the host with the first frame, and
	// changes to it if the host accepts: one frame stands for up to 64 KiB of a TCP
	// connection then, and the guest's kernel leaves checksums to the other end. A
	// host that does not know it drops the offer, and nothing is delayed.
	FramingAuto Framing = iota
	// FramingPlain is always the plain format: length, 16 bits, little-endian,
	// and the frame.
	FramingPlain
)

// Tap is the interface that a run creates, and that is gone after it.
type Tap struct {
	// Name of the interface. Empty: "eth0".
	Name string
	// MAC is its address. nil: 5a:94:ef:e4:0c:ee, for which a host has a static
	// lease by default.
	MAC net.HardwareAddr
	// MTU in bytes. 0: that of the lease, 1500 if it has none.
	MTU int
	// NetNS is the path of the network namespace it lives in, such as
	// /run/netns/NAME or /proc/PID/ns/net. Empty: that of Run's caller.
	NetNS string
}

// Run carries frames until ctx ends, which returns nil at once, or the
// connection or the tap fails. If the host closed the connection the error is
// io.EOF, or io.ErrUnexpectedEOF in the middle of a frame. A Guest may be run
// again when Run has returned.
//
// An error that no further attempt mends has a method Permanent that says so.
func (g *Guest) Run(ctx context.Context) error {
	return g.RunReporting(ctx, func(error) {})
}

// RunReporting is Run and calls report, one call at a time: with nil when the
// interface is configured and the first valid frame came from the host, and
// with the cause when the configuration fails or is lost.
func (g *Guest) RunReporting(ctx context.Context, report func(error)) error {
	if !g.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer g.running.Store(false)
	return g.run(ctx, report)
}

// SetTrace replaces what [Guest.Trace] says, at once, even while the Guest
// runs, and for later runs. nil ends the tracing; a call under way may still last.
func (g *Guest) SetTrace(f func(out bool, frame []byte)) { g.trace.Store(&f) }

// Stats returns what was carried since the Guest was made.
func (g *Guest) Stats() Stats {
	return Stats{
		FramesIn: g.stats.framesIn.Load(), BytesIn: g.stats.bytesIn.Load(),
		FramesOut: g.stats.framesOut.Load(), BytesOut: g.stats.bytesOut.Load(),
		Refused: g.stats.refused.Load(), Dropped: g.stats.dropped.Load(),
	}
}

// Stats counts frames, without what is in front of them on the wire. In is from the
// host, out is to it. One that stands for several is one.
type Stats struct {
	FramesIn, BytesIn   uint64
	FramesOut, BytesOut uint64
	Refused             uint64 // shorter than a header, longer than the MTU, of the reserved EtherType, or with an offload header that does not fit
	Dropped             uint64 // that the kernel did not take
}

type counters struct {
	framesIn, bytesIn, framesOut, bytesOut, refused, dropped atomic.Uint64
}

// permanentError is one that the next attempt meets again; a supervisor asks
// for it by the method.
type permanentError struct{ error }

func (e permanentError) Permanent() bool { return true }
func (e permanentError) Unwrap() error   { return e.error }

// config returns the Tap with its defaults, or what is wrong with the fields.
func (g *Guest) config() (Tap, error) {
	t := g.Tap
	if t.Name == "" {
		t.Name = DefaultName
	}
	if t.MAC == nil {
		t.MAC = net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	}
	var wrong string
	switch {
	case g.Dial == nil:
		wrong = "Dial is nil: set it to a function that connects to the host"
	case g.Responder != nil && g.Listen == nil:
		wrong = "Listen is nil: set it to a function that listens on the Responder's handshake port"
	// dev_valid_name and the %d pattern of the kernel's net/core/dev.c.
	case len(t.Name) > 15 || t.Name == "." || t.Name == ".." || strings.ContainsAny(t.Name, "/:% \t\n\v\f\r\x00"):
		wrong = fmt.Sprintf("Tap.Name %q: use 1 to 15 bytes without space, slash, colon or percent sign", t.Name)
	case g.Framing != FramingAuto && g.Framing != FramingPlain:
		wrong = fmt.Sprintf("Framing %d: use FramingAuto or FramingPlain", g.Framing)
	case len(t.MAC) != 6 || t.MAC[0]&1 != 0 || [6]byte(t.MAC) == [6]byte{}:
		wrong = fmt.Sprintf("Tap.MAC %q: use the 6 bytes of a unicast address", t.MAC)
	case t.MTU != 0 && (t.MTU < minMTU || t.MTU > maxMTU):
		wrong = fmt.Sprintf("Tap.MTU %d: use %d to %d, or 0 for that of the lease", t.MTU, minMTU, maxMTU)
	default:
		return t, checkDHCP(g.DHCP)
	}
	return t, permanentError{errors.New("guestswitch: " + wrong)}
}

// step does what can fail while a run begins.
func (g *Guest) step(what string, do func() error) error {
	if err := g.try(what, do); err != nil {
		return fmt.Errorf("guestswitch: %w", err)
	}
	return nil
}

// try is step for a caller who says whose error it is.
func (g *Guest) try(what string, do func() error) error {
	var err error
	if g.fault != nil {
		err = g.fault(what)
	}
	if err == nil {
		err = do()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

const (
	minMTU = 68             // RFC 791; the kernel's ETH_MIN_MTU
	maxMTU = 1<<16 - 1 - 14 // the longest frame, less its header: what the kernel allows a tap
)
