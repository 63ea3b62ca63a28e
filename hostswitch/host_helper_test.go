// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
)

var protocol = discovery.RancherDesktop

// A vm is a peer whose agent does what the test says, over connections in memory.
type vm struct {
	t    testing.TB
	id   string
	said chan string // "listen" when the host listens, "READY" when the agent got that
	wg   sync.WaitGroup

	mu     sync.Mutex
	agent  func(net.Conn) // has the handshake port; nil: nobody does
	refuse error          // of Listen
	ln     *memListener
}

func newVM(t testing.TB, id string) *vm {
	v := &vm{t: t, id: id, said: make(chan string, 1024)}
	t.Cleanup(v.wg.Wait)
	return v
}

func (v *vm) ID() string { return v.id }

func (v *vm) Dial(_ context.Context, port uint32) (net.Conn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.agent == nil || port != protocol.HandshakePort {
		return nil, syscall.ECONNREFUSED
	}
	host, guest := net.Pipe()
	agent := v.agent
	v.wg.Go(func() {
		defer guest.Close() //nolint:errcheck // the end
		agent(guest)
	})
	return host, nil
}

func (v *vm) Listen(port uint32) (net.Listener, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refuse != nil {
		return nil, v.refuse
	}
	if port != protocol.DataPort {
		return nil, errors.New("not the data port")
	}
	if v.ln != nil && !v.ln.isClosed() {
		return nil, syscall.EADDRINUSE
	}
	v.ln = &memListener{conns: make(chan net.Conn), broken: make(chan error), closed: make(chan struct{})}
	v.said <- "listen"
	return v.ln, nil
}

// set has agent answer the handshake port from now on.
func (v *vm) set(agent func(net.Conn)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.agent = agent
}

// refuseListen has Listen fail; nil: no longer.
func (v *vm) refuseListen(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refuse = err
}

// residual answers the handshake for ever, whether a guest is there or not.
func (v *vm) residual(conn net.Conn) { v.shake(conn) }

// once answers until it was told READY, as a guest does.
func (v *vm) once(conn net.Conn) {
	if v.shake(conn) {
		v.set(nil)
		v.said <- "READY"
	}
}

// shake is one turn of the guest's side of the handshake.
func (v *vm) shake(conn net.Conn) (ready bool) {
	if _, err := io.WriteString(conn, protocol.Signature); err != nil {
		return false
	}
	buf := make([]byte, len("READY"))
	_, err := io.ReadFull(conn, buf)
	return err == nil && string(buf) == "READY"
}

// heard waits until the VM was told what.
func (v *vm) heard(what string) {
	v.t.Helper()
	for await(v.t, v.said, v.id+" to be told "+what) != what {
	}
}

func (v *vm) listener() *memListener {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ln
}

// connect opens the data connection; the host has to listen.
func (v *vm) connect() net.Conn {
	v.t.Helper()
	guest, host := net.Pipe()
	ln := v.listener()
	require.NotNil(v.t, ln, "the host does not listen")
	select {
	case ln.conns <- host:
	case <-ln.closed:
		require.FailNow(v.t, "the host no longer listens")
	case <-time.After(patience):
		require.FailNow(v.t, "the host does not accept")
	}
	v.t.Cleanup(func() { _ = guest.Close() })
	return guest
}

// join answers the handshake, connects and has a guest on the connection.
func (v *vm) join() *switchtest.Guest {
	v.t.Helper()
	v.set(v.once)
	v.heard("READY")
	return guestOn(v.t, v.connect())
}

func guestOn(t testing.TB, conn net.Conn) *switchtest.Guest {
	t.Helper()
	g, err := switchtest.NewGuest(conn, switchtest.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// speak has a guest send a valid frame.
func speak(t testing.TB, g *switchtest.Guest) {
	t.Helper()
	require.NoError(t, g.SendFrame(ethernet((&guest{mac: guestMAC}).toAll(), markerType, []byte("here")...)))
}

type memListener struct {
	conns  chan net.Conn
	broken chan error
	closed chan struct{}
	once   sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.broken:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *memListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }
func (l *memListener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// find looks for peers often.
func find(peers ...discovery.Peer) *discovery.Discoverer {
	return look(discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) { return peers, nil }))
}

func look(source discovery.Source) *discovery.Discoverer {
	return &discovery.Discoverer{Source: source, Protocol: protocol, Interval: 2 * time.Millisecond}
}

// A hosting is a Host that runs, and what it says.
type hosting struct {
	t       testing.TB
	host    *hostswitch.Host
	events  chan hostswitch.Event
	reports chan error
	done    chan error
	end     func()
}

func startHost(t testing.TB, h *hostswitch.Host) *hosting {
	t.Helper()
	r := &hosting{t: t, host: h, events: make(chan hostswitch.Event, 4096), reports: make(chan error, 4096), done: make(chan error, 1)}
	if h.OnEvent == nil {
		h.OnEvent = func(e hostswitch.Event) { r.events <- e }
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- h.RunReporting(ctx, func(err error) { r.reports <- err })
	}()
	r.end = cancel
	t.Cleanup(func() { cancel(); <-ended })
	return r
}

// wait returns the next event of a kind, and drops those before it.
func (r *hosting) wait(kind hostswitch.EventKind) hostswitch.Event {
	r.t.Helper()
	for {
		if e := r.next(kind.String()); e.Kind == kind {
			return e
		}
	}
}

func (r *hosting) next(what string) hostswitch.Event {
	r.t.Helper()
	select {
	case e := <-r.events:
		return e
	case err := <-r.done:
		require.FailNow(r.t, "Run has returned", "waiting for %s: %v", what, err)
	case <-time.After(patience):
		require.FailNow(r.t, "still waiting for "+what)
	}
	panic("not reached")
}

// ready waits for the next report that all is well.
func (r *hosting) ready() {
	r.t.Helper()
	for await(r.t, r.reports, "Ready") != nil {
	}
}

// degraded waits for the next report that something is wrong.
func (r *hosting) degraded() error {
	r.t.Helper()
	for {
		if err := await(r.t, r.reports, "Degraded"); err != nil {
			return err
		}
	}
}

// stop ends Run as a daemon does, which is no error.
func (r *hosting) stop() {
	r.t.Helper()
	r.end()
	require.NoError(r.t, await(r.t, r.done, "the end of Run"))
}

// never is a pause without end.
func never(int) time.Duration { return time.Hour }

// atOnce is no pause.
func atOnce(int) time.Duration { return 0 }

func (j journal) logger() *slog.Logger { return slog.New(j) }

func (j journal) has(part string) bool {
	return slices.ContainsFunc(j.from(slog.LevelDebug), func(m string) bool { return strings.Contains(m, part) })
}
