// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

type anyone struct{}

func (anyone) Allow(net.Conn) error { return nil }

// shortDir is a directory whose path leaves room for the name of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vm") //nolint:usetesting // TempDir's are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", dir+"/try")
	if err != nil {
		house.WineLacks(t, "unix sockets")
	}
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return dir
}

// unixGuest is a guest as it really is, with unix sockets for vsock: it shakes
// hands and dials at once.
func unixGuest(t testing.TB, dir string) *switchtest.Guest {
	t.Helper()
	ctx := withTimeout(t)
	peers, err := discovery.Unix(dir).Peers(ctx)
	require.NoError(t, err)
	ln, err := peers[0].Listen(protocol.HandshakePort)
	require.NoError(t, err)
	r := discovery.Responder{Protocol: protocol, Filter: anyone{}}
	require.NoError(t, r.WaitReady(ctx, ln))
	conn, err := peers[0].Dial(ctx, protocol.DataPort)
	require.NoError(t, err, "the host listens before it says READY")
	return guestOn(t, conn)
}

// From finding the guest to traffic both ways, over real sockets; five guests one
// after the other, as the same guest restarted. Forwards and leases outlive all of
// them, whoever asked for them (FAILURES 17).
func TestHostFindsCarriesAndRecovers(t *testing.T) {
	// Not echo: between two TCP sockets it takes pipes of the kernel, which net keeps
	// until a garbage collection.
	server := hostTCP(t, func(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, c) })
	before := measure()
	t.Run("run", func(t *testing.T) {
		dir := shortDir(t)
		fromHost, fromGuest := freePort(t), freePort(t)
		h := &hostswitch.Host{
			Config:     hostswitch.Config{Forwards: []hostswitch.Forward{{Local: fromHost, Remote: "192.168.127.2:80"}}},
			Discoverer: look(discovery.Unix(dir)),
		}
		h.SetPause(atOnce)
		r := startHost(t, h)
		for restart := range 6 {
			g := unixGuest(t, dir)
			require.Equal(t, dir, r.wait(hostswitch.Found).Peer)
			require.Equal(t, dir, r.wait(hostswitch.Connected).Peer)
			lease, err := g.DHCP(withTimeout(t))
			require.NoError(t, err)
			require.Equal(t, guestAddr(2), lease.Addr.Addr())
			if restart > 0 {
				e := r.wait(hostswitch.Recovered)
				require.Len(t, e.Snapshot.Ports, 1)
				require.Len(t, e.Snapshot.Forwards, 2)
				require.NotEmpty(t, e.Snapshot.Leases)
			}
			r.ready()

			c, err := g.DialContext(withTimeout(t), "tcp", server.String())
			require.NoError(t, err)
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			require.Equal(t, "out", exchange(t, c, "out"))
			require.NoError(t, c.Close())

			ln, err := g.Listen("tcp", ":80")
			require.NoError(t, err)
			serve(t, ln, echo)
			status, body := call(t, g.HTTPClient(), "POST", gatewayAPI+"/services/forwarder/expose", `{"local":"`+fromGuest+`","remote":":80","protocol":"tcp"}`)
			require.Equal(t, 200, status, body)
			require.Equal(t, "in", hostExchange(t, fromHost, "in"))
			require.Equal(t, "in", hostExchange(t, fromGuest, "in"))

			require.NoError(t, g.Close())
			lost := r.wait(hostswitch.Lost)
			require.Positive(t, lost.Up)
			require.Len(t, lost.Snapshot.Ports, 1, "as it was when it ended")
			require.Equal(t, restart+1, lost.Short)
			require.ErrorContains(t, r.degraded(), "lost after")
		}
		r.stop()
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fromGuest)
		require.NoError(t, err, "the port is free again")
		require.NoError(t, ln.Close())
		require.NoFileExists(t, dir+"/6656.sock")
	})
	settles(t, before)
}

// FAILURES 16: neither the handshake nor the connection is the network. It is
// ready when the first valid frame has come.
func TestHostIsReadyAtTheFirstValidFrame(t *testing.T) {
	sw, v := newSwitch(t, hostswitch.Config{}), newVM(t, "vm")
	r := startHost(t, &hostswitch.Host{Switch: sw, Discoverer: find(v)})
	g := v.join()
	r.wait(hostswitch.Connected)
	require.NoError(t, g.SendFrame(make([]byte, 13)))
	eventually(t, func() bool { return sw.Snapshot().Drops["short"] == 1 }, "a frame that is none")
	require.Empty(t, r.reports)
	speak(t, g)
	require.NoError(t, await(t, r.reports, "Ready"))
	r.stop()
	require.Empty(t, r.reports)
}

// The data listener is there before the guest is told READY, and stays when hands
// are shaken again.
func TestHostListensBeforeREADY(t *testing.T) {
	v := newVM(t, "vm")
	h := &hostswitch.Host{Discoverer: find(v)}
	h.SetPause(atOnce)
	r := startHost(t, h)
	v.set(v.once)
	require.Equal(t, "listen", await(t, v.said, "listen"))
	require.Equal(t, "READY", await(t, v.said, "READY"))
	ln := v.listener()
	require.NoError(t, v.connect().Close())
	r.wait(hostswitch.Lost)
	v.set(v.once)
	require.Equal(t, "READY", await(t, v.said, "READY without another Listen"))
	require.Same(t, ln, v.listener())
	require.False(t, ln.isClosed())
	r.stop()
	require.True(t, ln.isClosed())
}

// FAILURES 16: what is left of a VM, or announces one, takes READY and nobody
// comes. The guest is there at the third handshake.
func TestHostPhantom(t *testing.T) {
	v := newVM(t, "vm")
	var failures []int
	h := &hostswitch.Host{Discoverer: find(v)}
	clock := turn(t, h)
	h.SetPause(func(n int) time.Duration { failures = append(failures, n); return 0 })
	shakes, came := 0, make(chan net.Conn, 1)
	v.set(func(conn net.Conn) {
		if !v.shake(conn) {
			return
		}
		if shakes++; shakes == 3 { // one agent at a time: the host waits for the connection
			v.set(nil)
			guest, host := net.Pipe()
			v.listener().conns <- host
			came <- guest
		}
	})
	r := startHost(t, h)
	for range 2 {
		require.Equal(t, hostswitch.Found, r.next("found").Kind)
		clock.pass(hostswitch.ConnectTimeout)
		e := r.next("phantom")
		require.Equal(t, hostswitch.Phantom, e.Kind)
		require.Equal(t, "vm", e.Peer)
		require.ErrorContains(t, r.degraded(), "guest vm took READY, but did not connect within 10s")
	}
	require.Equal(t, hostswitch.Found, r.next("found").Kind)
	g := guestOn(t, await(t, came, "the guest"))
	r.wait(hostswitch.Connected)
	speak(t, g)
	r.ready()
	_, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	r.wait(hostswitch.Leased)
	clock.pass(hostswitch.WaitingEvery)
	clock.pass(hostswitch.WaitingEvery) // the Host has seen the first
	require.Empty(t, r.events, "the time to connect no longer counts")
	r.stop()
	require.Equal(t, []int{1, 2}, failures[:2])
}

// A released guest that was slow has left its handshake port. It must be taken
// when it comes.
func TestHostTakesALateGuest(t *testing.T) {
	v := newVM(t, "vm")
	h := &hostswitch.Host{Discoverer: find(v)}
	clock := turn(t, h)
	h.SetPause(never)
	r := startHost(t, h)
	v.set(v.once)
	v.heard("READY")
	clock.pass(hostswitch.ConnectTimeout)
	r.wait(hostswitch.Phantom)
	g := guestOn(t, v.connect())
	speak(t, g)
	r.wait(hostswitch.Connected)
	r.ready()
	r.stop()
}

func TestHostWaitsForeverIfToldTo(t *testing.T) {
	v := newVM(t, "vm")
	r := startHost(t, &hostswitch.Host{Discoverer: find(v), ConnectTimeout: -1, StallTimeout: -1, ReportEvery: -1})
	v.set(v.once)
	v.heard("READY")
	g := guestOn(t, v.connect())
	require.Equal(t, hostswitch.Found, r.next("found").Kind)
	require.Equal(t, hostswitch.Connected, r.next("connected, and no phantom").Kind)
	speak(t, g)
	r.ready()
	r.stop()
}

// What fails between finding and connecting is told, and tried again.
func TestHostTriesAgain(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*vm)
		mend  func(*vm)
		says  string
	}{
		"the guest hangs when it should take READY": {
			spoil: func(v *vm) {
				v.set(func(conn net.Conn) {
					_, _ = io.WriteString(conn, protocol.Signature)
					for { // a pipe whose end is not read from blocks the writer
						if _, err := conn.Write([]byte("more")); err != nil {
							return
						}
					}
				})
			},
			mend: func(*vm) {},
			says: "write READY",
		},
		"another program has the handshake port when READY is due": {
			spoil: func(v *vm) {
				v.set(func(conn net.Conn) {
					v.set(func(conn net.Conn) { _, _ = io.WriteString(conn, "SSH-2.0") })
					_, _ = io.WriteString(conn, protocol.Signature)
				})
			},
			mend: func(*vm) {},
			says: `sent "SSH-2.0" in place of the signature`,
		},
		"the data port is taken": {
			spoil: func(v *vm) { v.refuseListen(errors.New("port taken")); v.set(v.residual) },
			mend:  func(v *vm) { v.refuseListen(nil) },
			says:  "listen for guest vm: port taken",
		},
		"the listener breaks": {
			spoil: func(v *vm) {
				v.set(v.once)
				v.heard("READY")
				v.listener().broken <- errors.New("the adapter is gone")
			},
			mend: func(*vm) {},
			says: "listen for guest vm: the adapter is gone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVM(t, "vm")
			d := find(v)
			d.AttemptTimeout = 50 * time.Millisecond
			h := &hostswitch.Host{Discoverer: d}
			h.SetPause(atOnce)
			r := startHost(t, h)
			c.spoil(v)
			err := r.degraded()
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "hostswitch: host: ")
			v.set(nil)
			c.mend(v)
			speak(t, v.join())
			r.ready()
			r.stop()
		})
	}
}

// A listener that breaks under a connection does not take that along; the next
// handshake opens another.
func TestHostListenerBreaksUnderAConnection(t *testing.T) {
	v := newVM(t, "vm")
	log := newJournal()
	bridges := make(chan string, 8)
	h := &hostswitch.Host{Discoverer: find(v), Logger: log.logger(), OnGuest: func(ctx context.Context, _ discovery.Peer) error {
		bridges <- "begin"
		<-ctx.Done()
		bridges <- "end"
		return nil
	}}
	h.SetPause(atOnce)
	r := startHost(t, h)
	g := v.join()
	speak(t, g)
	r.ready()
	first := v.listener()
	first.broken <- errors.New("the adapter is gone")
	await(t, first.closed, "the listener to be closed")
	eventually(t, func() bool { return log.has("the adapter is gone") }, "the log")
	require.Equal(t, "begin", await(t, bridges, "OnGuest"))
	require.Empty(t, bridges)
	_, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	require.Empty(t, r.reports)

	require.NoError(t, g.Close())
	r.wait(hostswitch.Lost)
	speak(t, v.join())
	r.wait(hostswitch.Recovered)
	require.NotSame(t, first, v.listener())
	r.stop()
	require.Equal(t, "end", await(t, bridges, "OnGuest"))
}
