// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

// portQueue bounds what waits for one guest, in bytes. A guest that does not
// read fills its own queue and nobody else's.
const portQueue = 8 << 20

// maxPorts bounds the guests of one network.
const maxPorts = 64

// ErrTooManyGuests is returned by [Switch.Attach] when 64 guests are attached
// already.
var ErrTooManyGuests = errors.New("too many guests")

// lastWord is how long a guest that takes no frames any more is listened to.
const lastWord = time.Second

// A port is one guest's connection: a reader, a bounded queue and a writer.
type port struct {
	id       uint64
	name     string
	guest    string // whose connection it is
	guestID  uint64 // of that name, not 0
	framing  Framing
	conn     net.Conn
	inlet    *netstack.Inlet // the reader's
	end      context.CancelCauseFunc
	queue    *frame.Queue
	attached time.Time
	requests *rate.Limiter // of the HTTP API
	troubles *rate.Limiter // that are logged and told of
	heard    chan struct{} // closed at the first valid frame
	last     Snapshot      // taken as the connection ends
	misled   bool          // that it has the MAC of another was told; the reader's

	offload                                atomic.Bool // the guest knows the format, and has this host's word
	framesIn, bytesIn, framesOut, bytesOut atomic.Uint64
	meant                                  atomic.Uint64 // frames for this guest alone, with those that were dropped
	lastFrame                              atomic.Int64  // Unix ns of the last valid frame from the guest; 0: none yet
	drops                                  [dropReasons]atomic.Uint64
}

// ID implements [netstack.Peer].
func (p *port) ID() uint64 { return p.guestID }

// Full implements [netstack.Peer].
func (p *port) Full() <-chan struct{} { return p.queue.Full() }

// Wide implements [netstack.Peer]. The tap of a guest that knows the offload format has
// room for a large window; that of a released guest has room for 500 or 1000 frames, and
// what it forwards for its containers is lost beyond that.
func (p *port) Wide() bool { return p.offload.Load() }

// send puts a frame into the port's queue, or drops it when that is full.
func (p *port) send(h frame.Header, parts ...[]byte) {
	p.meant.Add(1)
	p.count(p.queue.PutOffload(h, parts...), parts)
}

func (p *port) count(taken bool, parts [][]byte) {
	if !taken {
		return
	}
	p.framesOut.Add(1)
	for _, b := range parts {
		p.bytesOut.Add(uint64(len(b)))
	}
}

// Attach carries the frames of one guest until its connection ends. It always
// closes conn, and returns nil when the guest closed it (whether or not it had
// read everything) or ctx ended. Otherwise the error Is [ErrClosed] when the
// Switch was closed, [ErrTooManyGuests] when 64 are attached already,
// [io.ErrUnexpectedEOF] when the stream broke off inside a frame, or the error of
// conn. It returns at once when ctx ends, idle or busy, as soon as
// conn's own Close lets a blocked call go.
//
// What is wrong with a single frame drops the frame and is counted in
// [Snapshot], nothing more.
func (s *Switch) Attach(ctx context.Context, conn net.Conn, p Port) error {
	return s.attach(ctx, conn, p, func(*port) {})
}

// attach is Attach for a caller who wants to see the port before its first frame.
func (s *Switch) attach(ctx context.Context, conn net.Conn, p Port, started func(*port)) error {
	defer conn.Close() //nolint:errcheck // whatever it says, it is closed
	if p.Framing != FramingAuto && p.Framing != FramingPlain {
		return fmt.Errorf("hostswitch: attach: Port.Framing: %d is unknown", p.Framing)
	}
	run, end := context.WithCancelCause(ctx)
	defer end(nil)
	port, err := s.addPort(conn, p, end)
	if err != nil {
		return err
	}
	defer func() { s.removePort(port, context.Cause(run)) }()
	started(port)
	rawio.Widen(conn)

	var wg sync.WaitGroup
	wg.Add(1)
	context.AfterFunc(run, func() {
		defer wg.Done()
		port.queue.Close()
		_ = conn.Close() // lets the reader go, and a write under way
	})
	wg.Go(func() {
		err := port.queue.Drain(rawio.NewWriter(conn))
		if err == nil {
			return
		}
		// Most likely the guest is gone. Whether it said goodbye, the reader
		// knows, who comes to the end of the stream only now.
		select {
		case <-run.Done():
		case <-time.After(lastWord):
			end(fmt.Errorf("write: %w", err))
		}
	})
	end(s.readPort(port))
	wg.Wait()

	switch cause := context.Cause(run); {
	case cause == io.EOF, ctx.Err() != nil && cause == context.Cause(ctx): //nolint:errorlint // both are what they are, not wrapped
		return nil
	case errors.Is(cause, errReset), errors.Is(cause, errPipe): // closed by the guest with something unread
		return nil
	default:
		return fmt.Errorf("hostswitch: attach %s: %w", port.name, cause)
	}
}

// readPort takes the frames of a guest to where they go, until its stream ends.
func (s *Switch) readPort(p *port) error {
	r := frame.NewReader(rawio.NewReader(p.conn))
	defer p.inlet.Flush()
	var terms negotiation
	var turn turn
	now := time.Now()
	for first := true; ; first = false {
		fresh := !r.Ready() // a batch is over
		if fresh {
			p.inlet.Flush()
			turn.pass()
		}
		f, err := r.Next()
		if err != nil {
			return err
		}
		if fresh {
			now = time.Now()
		}
		if m, ok := frame.ParseMessage(f); ok && s.negotiate(p, &terms, m, first, f) {
			if m.Kind == frame.Commit {
				r.Upgrade()
			}
			continue
		}
		s.ingress(p, r.Header(), f, now)
	}
}

// A turn is passed on after each batch of frames: those whom they woke run first, with
// the data at hand, and meanwhile more comes in that is read at once. Where others do
// not give it back soon, as they need all processors, it is kept for a while.
type turn struct{ keep int }

func (t *turn) pass() {
	const soon, while = time.Millisecond, 1000
	if t.keep > 0 {
		t.keep--
		return
	}
	start := time.Now()
	runtime.Gosched()
	if time.Since(start) > soon {
		t.keep = while
	}
}

// addPort registers a connection; end is called when the Switch is closed.
func (s *Switch) addPort(conn net.Conn, p Port, end context.CancelCauseFunc) (*port, error) {
	name := p.Name
	if name == "" {
		name = peerName(conn)
	}
	s.mu.Lock()
	if err := s.admitLocked(); err != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("hostswitch: attach %s: %w", name, err)
	}
	s.lastPort++
	guest := guestName(conn, p)
	port := &port{
		id: s.lastPort, name: name, guest: guest, guestID: maphash.String(s.seed, guest) | 1,
		framing: p.Framing, conn: conn, end: end, attached: time.Now(),
		inlet:    s.stack.NewInlet(),
		queue:    frame.NewQueue(portQueue),
		requests: rate.NewLimiter(apiRate, apiBurst),
		troubles: rate.NewLimiter(1, 10),
		heard:    make(chan struct{}),
	}
	ports := maps.Clone(*s.ports.Load())
	ports[port.id] = port
	s.ports.Store(&ports)
	s.attached.Add(1)
	s.mu.Unlock()
	s.events.emit(Event{Kind: Connected, Peer: name})
	s.log.Info("guest connected", "peer", name, "port", port.id)
	return port, nil
}

func (s *Switch) admitLocked() error {
	switch {
	case s.closed:
		return ErrClosed
	case len(*s.ports.Load()) >= maxPorts:
		return ErrTooManyGuests
	default:
		return nil
	}
}

// removePort forgets a connection, and tells why it ended while it can still be
// seen.
func (s *Switch) removePort(p *port, cause error) {
	defer s.attached.Done()
	lost := Event{Kind: Lost, Peer: p.name, Up: time.Since(p.attached)}
	if !errors.Is(cause, io.EOF) && !errors.Is(cause, context.Canceled) {
		lost.Err = cause
	}
	p.last = s.Snapshot()
	s.events.emitWith(lost, func() Snapshot { return p.last })
	s.cam.forget(p)
	s.dhcp.Detach(p.id)
	s.mu.Lock()
	ports := maps.Clone(*s.ports.Load())
	delete(ports, p.id)
	s.ports.Store(&ports)
	s.gone.add(p.snapshot())
	s.mu.Unlock()
	s.log.Info("guest gone", "peer", p.name, "port", p.id, "up", lost.Up, "error", lost.Err)
}

// succeeds reports whether p is a later connection of the guest that had old.
func (p *port) succeeds(old *port) bool { return p.id > old.id && p.guest == old.guest }

// guestName tells whose connection it is: by its name, or by its peer's address,
// without the port, which is another each time.
func guestName(conn net.Conn, p Port) string {
	if p.Name != "" {
		return p.Name
	}
	name := peerName(conn)
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		return name[:i]
	}
	return name
}

// peerName is how a connection is called that was given no name.
func peerName(conn net.Conn) string {
	if a := conn.RemoteAddr(); a != nil && a.String() != "" {
		return a.Network() + " " + a.String()
	}
	return "unnamed"
}

// Serve attaches every connection that ln accepts, until ctx ends; it closes ln,
// ends the connections and waits for them. The name of each is that of a [Port]
// without one: connections over unix sockets, the same or another, are all one guest,
// of which the last to come has the address. For several such guests, accept them and
// call Attach with a Port.Name for each. Serve returns nil when ctx ended it, an
// error that Is [ErrClosed] when the Switch was closed, and otherwise the error
// of Accept; one that passes (too many open files, a connection that was aborted
// before it was accepted) is waited out.
func (s *Switch) Serve(ctx context.Context, ln net.Listener) error {
	if ln == nil {
		return errors.New("hostswitch: serve: the listener is nil")
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Add(1)
	context.AfterFunc(run, func() {
		defer wg.Done()
		_ = ln.Close()
	})
	defer onDone(s.ctx, cancel)()
	err := acceptLoop(run, s.log, ln, passing, func(conn net.Conn) {
		wg.Go(func() {
			if err := s.Attach(run, conn, Port{}); err != nil && s.ctx.Err() == nil {
				s.log.Warn("guest connection failed", "error", err)
			}
		})
	})
	cancel()
	wg.Wait()
	switch {
	case s.ctx.Err() != nil:
		return fmt.Errorf("hostswitch: serve %s: %w", ln.Addr(), ErrClosed)
	case ctx.Err() != nil:
		return nil
	default:
		return fmt.Errorf("hostswitch: serve %s: %w", ln.Addr(), err)
	}
}
