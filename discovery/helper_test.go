// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	protocol  = discovery.RancherDesktop
	signature = protocol.Signature
	errDown   = errors.New("no agent yet")
)

// A vm is a peer that follows a script, over in-memory connections, so that it
// can be used where the clock is not the real one.
type vm struct {
	id     string
	script func(conn net.Conn)                         // the guest's end of a connection; its return closes it
	dial   func(ctx context.Context) (net.Conn, error) // in place of the script
	mu     sync.Mutex
	dials  int // so far
	open   int // dials and connections
	most   int // open at a time
}

func (v *vm) ID() string                               { return v.id }
func (v *vm) Listen(port uint32) (net.Listener, error) { return nil, errors.ErrUnsupported }
func (v *vm) count(dials, open int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dials += dials
	v.open += open
	v.most = max(v.most, v.open)
}

func (v *vm) stats() (dials, open, most int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.dials, v.open, v.most
}

func (v *vm) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	if port != protocol.HandshakePort {
		return nil, errDown
	}
	v.count(1, 1)
	if v.dial != nil {
		conn, err := v.dial(ctx)
		if err != nil {
			v.count(0, -1)
			return nil, err
		}
		return &counted{Conn: conn, vm: v}, nil
	}
	host, guest := net.Pipe()
	go func() {
		defer shut(guest)
		v.script(guest)
	}()
	return &counted{Conn: host, vm: v}, nil
}

// A counted connection is open until it is closed.
type counted struct {
	net.Conn
	vm   *vm
	once sync.Once
}

func (c *counted) Close() error {
	defer c.once.Do(func() { c.vm.count(0, -1) })
	return c.Conn.Close()
}

// silent accepts and never sends.
func silent(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// says sends s and waits for the host to close.
func says(s string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = io.WriteString(conn, s)
		silent(conn)
	}
}

// drip sends the right signature, a byte a second.
func drip(conn net.Conn) {
	for _, b := range []byte(signature) {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return // the host has closed
		}
	}
	silent(conn)
}

// hangs is a dial that only its context ends.
func hangs(ctx context.Context) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func refuses(context.Context) (net.Conn, error) { return nil, errDown }

// these is a Source that always lists the same.
func these(peers ...discovery.Peer) discovery.Source {
	return discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) { return peers, nil })
}

// discoverer has an interval of which no timeout is a multiple: a ticker that is
// due at the same moment as other timers of a bubble can crash the race detector
// (https://go.dev/issue/78156).
func discoverer(s discovery.Source) *discovery.Discoverer {
	return &discovery.Discoverer{Source: s, Protocol: protocol, Interval: 1007 * time.Millisecond}
}

// shut closes what the test has no more use for.
func shut(c io.Closer) { _ = c.Close() }

// pass lets time go by on the clock of a bubble, where none really does, and lets
// everybody else react to it.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// A journal is a log that can be looked at.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// lines returns the lines so far that hold part.
func (j *journal) lines(part string) (found []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.buf.String()) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}
