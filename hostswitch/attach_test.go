// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

// start attaches the far end of a pipe by hand.
func start(ctx context.Context, sw *hostswitch.Switch) (net.Conn, <-chan error) {
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- sw.Attach(ctx, far, hostswitch.Port{}) }()
	return near, done
}

func requireClosed(t testing.TB, conn net.Conn) {
	t.Helper()
	_, err := conn.Write([]byte{0})
	require.ErrorIs(t, err, io.ErrClosedPipe, "Attach closes its connection")
}

func TestAttachEnds(t *testing.T) {
	// fill makes the switch write to a guest that does not read: its writer is
	// blocked for good.
	fill := func(t *testing.T, sw *hostswitch.Switch) {
		other := attachRaw(t, sw, 9)
		eventually(t, func() bool { return len(sw.Snapshot().Ports) == 2 }, "both attached")
		for range 10 {
			other.send(other.marker("x"))
		}
		eventually(t, func() bool {
			for _, p := range sw.Snapshot().Ports {
				if p.FramesOut > 0 {
					return true
				}
			}
			return false
		}, "frames on their way to the guest that does not read")
	}
	for name, tc := range map[string]struct {
		end    func(t *testing.T, sw *hostswitch.Switch, cancel func(), near net.Conn)
		closed bool // the pipe was closed by the test
		want   error
	}{
		"the guest closes": {
			end:    func(t *testing.T, _ *hostswitch.Switch, _ func(), near net.Conn) { require.NoError(t, near.Close()) },
			closed: true,
		},
		"the context ends": {
			end: func(_ *testing.T, _ *hostswitch.Switch, cancel func(), _ net.Conn) { cancel() },
		},
		"the switch is closed": {
			end:  func(t *testing.T, sw *hostswitch.Switch, _ func(), _ net.Conn) { require.NoError(t, sw.Close()) },
			want: hostswitch.ErrClosed,
		},
		"the stream breaks off in a length": {
			end: func(t *testing.T, _ *hostswitch.Switch, _ func(), near net.Conn) {
				_, err := near.Write([]byte{1})
				require.NoError(t, err)
				require.NoError(t, near.Close())
			},
			closed: true,
			want:   io.ErrUnexpectedEOF,
		},
		"the stream breaks off in a frame": {
			end: func(t *testing.T, _ *hostswitch.Switch, _ func(), near net.Conn) {
				_, err := near.Write([]byte{60, 0, 1, 2, 3})
				require.NoError(t, err)
				require.NoError(t, near.Close())
			},
			closed: true,
			want:   io.ErrUnexpectedEOF,
		},
	} {
		for _, busy := range []bool{false, true} {
			t.Run(map[bool]string{false: "idle", true: "busy"}[busy]+"/"+name, func(t *testing.T) {
				for range 20 { // reader and writer race for the last word
					sw := newSwitch(t, hostswitch.Config{})
					ctx, cancel := context.WithCancel(t.Context())
					near, done := start(ctx, sw)
					if busy {
						fill(t, sw)
					} else {
						eventually(t, func() bool { return len(sw.Snapshot().Ports) == 1 }, "attached")
					}
					tc.end(t, sw, cancel, near)
					err := await(t, done, "Attach") // FAILURES 15
					cancel()
					if tc.want == nil {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, tc.want)
					}
					if tc.want == hostswitch.ErrClosed { //nolint:errorlint // the table's
						require.ErrorIs(t, err, net.ErrClosed)
					}
					if !tc.closed {
						requireClosed(t, near)
					}
					require.NoError(t, sw.Close())
				}
			})
		}
	}
}

func TestAttachRefuses(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	near, far := net.Pipe()
	require.ErrorContains(t, sw.Attach(t.Context(), far, hostswitch.Port{Framing: 99}), "Port.Framing")
	requireClosed(t, near)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	near, done := start(ended, sw)
	require.NoError(t, await(t, done, "Attach with a context that has ended"))
	requireClosed(t, near)

	require.NoError(t, sw.Close())
	near, done = start(t.Context(), sw)
	err := await(t, done, "Attach to a closed switch")
	require.ErrorIs(t, err, hostswitch.ErrClosed)
	require.ErrorIs(t, err, net.ErrClosed)
	requireClosed(t, near)
}

// A broken connection tells its own error.
func TestAttachTellsTheConnectionsError(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	near, far := net.Pipe()
	defer near.Close() //nolint:errcheck // the end
	err := sw.Attach(t.Context(), brokenConn{far}, hostswitch.Port{Name: "vm"})
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, "attach vm")
}

var errBroken = errors.New("cable cut")

type brokenConn struct{ net.Conn }

func (brokenConn) Read([]byte) (int, error) { return 0, errBroken }

// A guest that goes on sending but takes nothing is not one any more.
func TestAttachEndsWhenWritesFail(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	near, far := net.Pipe()
	defer near.Close() //nolint:errcheck // the end
	done := make(chan error, 1)
	go func() { done <- sw.Attach(t.Context(), deafConn{far}, hostswitch.Port{}) }()
	other := attachRaw(t, sw, 9)
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 2 }, "both attached")
	other.send(other.marker("x"))
	require.ErrorIs(t, await(t, done, "Attach"), errBroken)
}

type deafConn struct{ net.Conn }

func (deafConn) Write([]byte) (int, error) { return 0, errBroken }

func TestPortNames(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- sw.Serve(ctx, ln) }()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	require.NoError(t, err)
	attachRaw(t, sw, 2)
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 2 }, "both")
	names := map[string]bool{}
	for _, p := range sw.Snapshot().Ports {
		names[p.Name] = true
	}
	require.Equal(t, map[string]bool{"tcp " + c.LocalAddr().String(): true, "guest 2": true}, names)
	cancel()
	require.NoError(t, await(t, served, "Serve"))
	require.NoError(t, c.Close())
}

// FAILURES 8: an end that was asked for is no error, neither returned nor logged.
func TestServeEndsCleanly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": path} {
		t.Run(network, func(t *testing.T) { serveEndsCleanly(t, network, address) })
	}
	_, err := os.Stat(path)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func serveEndsCleanly(t *testing.T, network, address string) {
	logged := newJournal()
	sw := newSwitch(t, hostswitch.Config{Logger: slog.New(logged)})
	ln, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	if err != nil && network == "unix" {
		house.WineLacks(t, "unix sockets")
	}
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- sw.Serve(ctx, ln) }()
	var conns []net.Conn
	for range 3 {
		c, err := new(net.Dialer).DialContext(ctx, network, ln.Addr().String())
		require.NoError(t, err)
		conns = append(conns, c)
	}
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 3 }, "guests")
	require.NoError(t, conns[0].Close(), "a guest that goes")
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 2 }, "it is gone")
	cancel()
	require.NoError(t, await(t, served, "Serve"))
	for _, c := range conns[1:] {
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "Serve ends its connections")
		require.NoError(t, c.Close())
	}
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed, "Serve closes its listener")
	require.NoError(t, sw.Close())
	require.Empty(t, logged.from(slog.LevelWarn))
	require.NotEmpty(t, logged.from(slog.LevelInfo), "the log says who came and went")
}

func TestServeEndsWithTheSwitch(t *testing.T) {
	logged := newJournal()
	sw := newSwitch(t, hostswitch.Config{Logger: slog.New(logged)})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- sw.Serve(context.Background(), ln) }()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // the end
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 1 }, "the guest")
	require.NoError(t, sw.Close())
	require.ErrorIs(t, await(t, served, "Serve"), hostswitch.ErrClosed)
	require.Empty(t, logged.from(slog.LevelWarn))
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)

	ln, err = new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorIs(t, sw.Serve(t.Context(), ln), hostswitch.ErrClosed, "on a closed switch")
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// fakeListener is no listener of any system: its Accept returns what the test
// says, because a host that is out of descriptors is hard to come by.
type fakeListener struct {
	net.Listener
	mu     sync.Mutex
	errors []error
}

func (l *fakeListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errors) > 0 {
		err := l.errors[0]
		l.errors = l.errors[1:]
		return nil, err
	}
	return l.Listener.Accept()
}

type temporary struct{ error }

func (temporary) Temporary() bool { return true }

func TestServeWaitsOutWhatPasses(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	full := temporary{errors.New("too many open files")}
	ln := &fakeListener{Listener: inner, errors: []error{full, full, full}}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- sw.Serve(ctx, ln) }()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", inner.Addr().String())
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // the end
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 1 }, "the guest that came after the errors")
	cancel()
	require.NoError(t, await(t, served, "Serve"))

	inner, err = new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	err = sw.Serve(t.Context(), &fakeListener{Listener: inner, errors: []error{full, errBroken}})
	require.ErrorIs(t, err, errBroken, "what does not pass ends it")
	_, err = inner.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// While an error is waited out, the context still ends Serve at once.
func TestServeEndsWhileItWaits(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	ln := &fakeListener{Listener: inner}
	for range 1000 {
		ln.errors = append(ln.errors, temporary{errBroken})
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- sw.Serve(ctx, ln) }()
	cancel()
	require.NoError(t, await(t, served, "Serve"))
}
