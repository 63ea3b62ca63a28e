// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A guest that was there first does not get the address of one that came later;
// one that comes back on a new connection takes its own along.
func TestAddressOfAnotherGuest(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	first, second := attachRaw(t, sw, 9), attachRaw(t, sw, 2)
	require.Equal(t, gatewayMAC, first.resolve(t, gateway))
	require.Equal(t, gatewayMAC, second.resolve(t, gateway))
	first.send(ethernet(packet.Link{Src: second.mac, Dst: packet.Broadcast}, markerType, 1))
	eventually(t, func() bool { return drops(t, sw, first)["source"] == 1 }, "dropped")
	again := attachRaw(t, sw, 9)
	again.send(again.marker("back"))
	eventually(t, func() bool {
		for _, e := range sw.Snapshot().CAM {
			if e.MAC == again.mac.String() && e.Port == 3 {
				return true
			}
		}
		return false
	}, "moved to the new connection")
}

func TestTooManyGuests(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	for i := range 64 {
		attachRaw(t, sw, byte(2+i))
	}
	eventually(t, func() bool { return len(sw.Snapshot().Ports) == 64 }, "attached")
	near, far := net.Pipe()
	require.ErrorIs(t, sw.Attach(t.Context(), far, hostswitch.Port{}), hostswitch.ErrTooManyGuests)
	requireClosed(t, near)
}

// Connections that one guest holds open do not keep another from the API.
func TestIdleConnectionsOfAnotherGuest(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	bad, good := attach(t, sw, 3), attach(t, sw, 2)
	for range 64 { // those beyond its share are reset, at once or a moment later
		if c, err := bad.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(gateway, 80)); err == nil {
			defer c.Close() //nolint:errcheck // a test's
		}
	}
	status, body := call(t, good.http(), http.MethodGet, gatewayAPI+"/services/forwarder/all", "")
	require.Equal(t, http.StatusOK, status, body)
}

// Neither direction moves, as the host's end does not read: the guest's reset is
// noticed nevertheless.
func TestResetWhileNothingMoves(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	hold := make(chan struct{})
	defer close(hold)
	server := hostTCP(t, func(net.Conn) { <-hold })
	c := g.dial(t, server)
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Second)))
	_, err := c.Write(make([]byte, 16<<20))
	require.Error(t, err, "full")
	require.Equal(t, 1, sw.Snapshot().Connections)
	require.NoError(t, c.Abort())
	eventually(t, func() bool { return sw.Snapshot().Connections == 0 }, "the end of the connection")
}

// AllowExpose waits for its context, and the guest does not end its request.
func TestCloseEndsAllowExpose(t *testing.T) {
	asked := make(chan struct{})
	sw := newSwitch(t, hostswitch.Config{AllowExpose: func(ctx context.Context, _ *hostswitch.Forward) error {
		close(asked)
		<-ctx.Done()
		return ctx.Err()
	}})
	g := attach(t, sw, 2)
	c := g.dial(t, netip.AddrPortFrom(gateway, 80))
	const body = `{"local":"127.0.0.1:0","remote":":80"}`
	_, err := fmt.Fprintf(c, "POST /services/forwarder/expose HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(body), body)
	require.NoError(t, err)
	await(t, asked, "AllowExpose")
	await(t, during(func() { _ = sw.Close() }), "Close")
}

// What AllowExpose made another of is still the guest's to end.
func TestUnexposeWhatAllowExposeChanged(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{AllowExpose: func(_ context.Context, f *hostswitch.Forward) error {
		f.Local = strings.Replace(f.Local, "0.0.0.0", "127.0.0.1", 1)
		return nil
	}})
	g := attach(t, sw, 2)
	_, port, err := net.SplitHostPort(freePort(t))
	require.NoError(t, err)
	status, text := call(t, g.http(), http.MethodPost, gatewayAPI+"/services/forwarder/expose", `{"local":"0.0.0.0:`+port+`","remote":":80"}`)
	require.Equal(t, http.StatusOK, status, text)
	require.Equal(t, "127.0.0.1:"+port, sw.Forwards()[0].Local)
	status, text = call(t, g.http(), http.MethodPost, gatewayAPI+"/services/forwarder/unexpose", `{"local":"0.0.0.0:`+port+`"}`)
	require.Equal(t, http.StatusOK, status, text)
	require.Empty(t, sw.Forwards())
}

// A logger may ask the Switch what it is logging about.
func TestLoggerThatAsks(t *testing.T) {
	var sw atomic.Pointer[hostswitch.Switch]
	made := newSwitch(t, hostswitch.Config{Logger: slog.New(asking{slog.DiscardHandler, &sw})})
	sw.Store(made)
	await(t, during(func() {
		g := attachRaw(t, made, 2)
		f := expose(t, made, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
		require.NoError(t, made.Unexpose("tcp", f.Local))
		g.unplug()
		require.NoError(t, made.Close())
	}), "calls that log")
}

type asking struct {
	slog.Handler
	sw *atomic.Pointer[hostswitch.Switch]
}

func (a asking) Enabled(context.Context, slog.Level) bool { return true }

func (a asking) Handle(context.Context, slog.Record) error {
	if sw := a.sw.Load(); sw != nil {
		sw.Snapshot()
	}
	return nil
}

// A blackhole is no refusal: the guest is not told what nobody knows.
func TestTimeoutIsNoRefusal(t *testing.T) {
	var dials atomic.Int64
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(context.Context, string, string) (net.Conn, error) {
		dials.Add(1)
		return nil, &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}
	}})
	g := attach(t, sw, 2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		c, err := g.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(world, 80))
		if err == nil {
			_ = c.Close()
		}
		done <- err
	}()
	eventually(t, func() bool { return dials.Load() >= 2 }, "the guest asks again")
	cancel()
	require.ErrorIs(t, await(t, done, "dial"), context.Canceled)
}

// A lease that is renewed is no news, however often: a guest does not write the
// host's log.
func TestLeaseIsToldOnce(t *testing.T) {
	log := newJournal()
	sw := newSwitch(t, hostswitch.Config{Logger: slog.New(log)})
	g := attachRaw(t, sw, 2)
	for range 10 {
		g.lease(t)
	}
	leases := 0
	for _, line := range log.from(slog.LevelInfo) {
		if strings.Contains(line, "lease") {
			leases++
		}
	}
	require.Equal(t, 1, leases)
}

// The connection that DialOutbound returns cannot be half-closed: what it still
// says is delivered as long as it goes on.
func TestHalfCloseWithoutCloseWrite(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return struct{ net.Conn }{c}, err
	}})
	g := attach(t, sw, 2)
	server := hostTCP(t, func(c net.Conn) {
		for range 12 { // longer than the drain allows for, in silence
			time.Sleep(time.Second) //nolint:forbidigo // the pace is the point
			if _, err := io.WriteString(c, "x"); err != nil {
				return
			}
		}
	})
	c := g.dial(t, server)
	require.NoError(t, c.CloseWrite())
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Len(t, b, 12)
}
