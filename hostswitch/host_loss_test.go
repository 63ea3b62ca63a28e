// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// FAILURES 9 and 17: a lost connection is told with its cause, and its end too.
func TestHostTellsLossAndRecovery(t *testing.T) {
	v := newVM(t, "vm")
	r := startHost(t, &hostswitch.Host{Discoverer: find(v)})
	v.set(v.once)
	v.heard("READY")
	conn := v.connect()
	g := &guest{mac: macOf(2), addr: guestAddr(2)}
	_, err := conn.Write(wire(g.marker("here")))
	require.NoError(t, err)
	r.ready()
	tick()
	_, err = conn.Write([]byte{60, 0, 1, 2, 3}) // of 60
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	e := r.wait(hostswitch.Lost)
	require.Equal(t, "vm", e.Peer)
	require.ErrorIs(t, e.Err, io.ErrUnexpectedEOF)
	require.Positive(t, e.Up)
	require.False(t, e.Time.IsZero())
	require.False(t, e.Snapshot.Time.IsZero())
	require.ErrorIs(t, r.degraded(), io.ErrUnexpectedEOF)

	again := v.join()
	r.wait(hostswitch.Connected)
	require.Empty(t, r.events, "nothing has recovered before there is a frame")
	speak(t, again)
	r.ready()
	require.Equal(t, hostswitch.Recovered, r.next("recovered").Kind)
	r.stop()
}

// Connections that end within seconds are a dead data plane behind a live
// handshake: an event from the third on, and a pause that grows.
func TestHostShortConnections(t *testing.T) {
	v := newVM(t, "vm")
	paused := make(chan int, 64)
	h := &hostswitch.Host{Discoverer: find(v)}
	h.SetPause(func(n int) time.Duration { paused <- n; return 0 })
	turn(t, h) // it stands
	r := startHost(t, h)
	for n := 1; n <= 6; n++ {
		v.set(v.once)
		v.heard("READY")
		require.NoError(t, v.connect().Close())
		require.Equal(t, n, r.wait(hostswitch.Lost).Short)
		if n >= 3 {
			e := r.next("short")
			require.Equal(t, hostswitch.Short, e.Kind)
			require.Equal(t, n, e.Short)
		}
		require.Equal(t, n, await(t, paused, "the pause"))
	}
	r.stop()
	require.Empty(t, r.events)
}

// One that lasted ends the row.
func TestHostLongConnectionsAreNotShort(t *testing.T) {
	v := newVM(t, "vm")
	paused := make(chan int, 64)
	h := &hostswitch.Host{Discoverer: find(v)}
	h.SetPause(func(n int) time.Duration { paused <- n; return 0 })
	clock := turn(t, h)
	r := startHost(t, h)
	for range 5 {
		v.set(v.once)
		v.heard("READY")
		conn := v.connect()
		r.wait(hostswitch.Connected)
		clock.pass(hostswitch.LookEvery) // longer than what is short
		require.NoError(t, conn.Close())
		require.Zero(t, r.wait(hostswitch.Lost).Short)
		require.Zero(t, await(t, paused, "the pause"))
	}
	r.stop()
	require.Empty(t, r.events)
}

func TestHostPauseGrowsAndIsBounded(t *testing.T) {
	require.Zero(t, hostswitch.Pause(0))
	require.Zero(t, hostswitch.Pause(1))
	require.Equal(t, time.Second, hostswitch.Pause(2))
	last := hostswitch.Pause(2)
	for n := range 100 {
		p := hostswitch.Pause(n + 3)
		require.LessOrEqual(t, p, 30*time.Second)
		if last < 30*time.Second {
			require.Greater(t, p, last)
		}
		last = p
	}
	require.Equal(t, 30*time.Second, last)
}

// A frozen guest takes frames and sends none: it still is connected. It speaks
// when the test has it speak.
type frozen struct {
	*guest
	t    testing.TB
	conn net.Conn
	eof  <-chan struct{} // closed when the host has closed the connection
}

// freeze connects a guest that resolves the gateway, so that the host knows it, and
// then falls silent.
func freeze(t testing.TB, v *vm) *frozen {
	t.Helper()
	v.set(v.once)
	v.heard("READY")
	f := &frozen{guest: &guest{mac: macOf(2), addr: guestAddr(2)}, t: t, conn: v.connect()}
	frames := make(chan []byte, 1)
	f.eof = during(func() {
		for r := frame.NewReader(f.conn); ; {
			b, err := r.Next()
			if err != nil {
				return
			}
			select {
			case frames <- append([]byte(nil), b...):
			default:
			}
		}
	})
	t.Cleanup(func() { _ = f.conn.Close(); <-f.eof })
	f.speak(f.whoHas(gateway))
	e, _ := packet.ParseEthernet(await(t, frames, "the gateway's answer"))
	require.True(t, isARP(e))
	return f
}

func (f *frozen) speak(b []byte) {
	f.t.Helper()
	_, err := f.conn.Write(wire(b))
	require.NoError(f.t, err)
}

// wire is a frame as it is on the data connection.
func wire(f []byte) []byte {
	return append([]byte{byte(len(f)), byte(len(f) >> 8)}, f...)
}

// knock sends frames to the guest until stop is called.
func knock(t testing.TB, sw *hostswitch.Switch) (stop func()) {
	t.Helper()
	c, err := sw.DialContext(t.Context(), "udp", "192.168.127.2:9")
	require.NoError(t, err)
	end := make(chan struct{})
	done := during(func() {
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-end:
				tick.Stop()
				return
			case <-tick.C:
				_, _ = c.Write([]byte("anybody there?"))
			}
		}
	})
	return func() { close(end); <-done; _ = c.Close() }
}

// comes lets time pass until the next event, which is of that kind.
func (r *hosting) comes(clock *turnedClock, kind hostswitch.EventKind) hostswitch.Event {
	r.t.Helper()
	for len(r.events) == 0 {
		clock.pass(hostswitch.LookEvery)
	}
	e := r.next(kind.String())
	require.Equal(r.t, kind, e.Kind)
	return e
}

// FAILURES 18 and 33: a connection that is up while nothing comes from the guest is
// an event with what a person needs to find out why. It is never cut for that.
func TestHostStall(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, v *vm, r *hosting, f *frozen, clock *turnedClock){
		"the guest wakes up": func(t *testing.T, v *vm, r *hosting, f *frozen, clock *turnedClock) {
			f.speak(f.marker("good morning"))
			r.comes(clock, hostswitch.Recovered)
			require.NoError(t, await(t, r.reports, "Ready"))
			f.speak(f.marker("on the same connection"))
			eventually(t, func() bool { return r.host.Switch.Snapshot().Ports[0].FramesIn == 3 }, "the frame")
		},
		"it answers the handshake again": func(t *testing.T, v *vm, r *hosting, f *frozen, clock *turnedClock) {
			v.set(v.once)
			require.Equal(t, hostswitch.Found, r.next("found").Kind)
			lost := r.next("lost")
			require.Equal(t, hostswitch.Lost, lost.Kind)
			require.ErrorContains(t, lost.Err, "answers the handshake again")
			await(t, f.eof, "the old connection to be closed")
			v.heard("READY")
			g := guestOn(t, v.connect())
			require.Equal(t, hostswitch.Connected, r.next("connected").Kind)
			speak(t, g)
			require.Equal(t, hostswitch.Recovered, r.next("recovered").Kind)
			r.ready()
		},
		"it connects again": func(t *testing.T, v *vm, r *hosting, f *frozen, clock *turnedClock) {
			speak(t, guestOn(t, v.connect()))
			lost := r.next("lost")
			require.Equal(t, hostswitch.Lost, lost.Kind)
			require.ErrorContains(t, lost.Err, "connected again")
			await(t, f.eof, "the old connection to be closed")
			require.Equal(t, hostswitch.Connected, r.next("connected").Kind)
			require.Equal(t, hostswitch.Recovered, r.next("recovered").Kind)
			r.ready()
		},
		"the connection ends": func(t *testing.T, v *vm, r *hosting, f *frozen, clock *turnedClock) {
			require.NoError(t, f.conn.Close())
			require.Equal(t, hostswitch.Lost, r.next("lost").Kind)
			speak(t, v.join())
			r.wait(hostswitch.Recovered)
			r.ready()
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVM(t, "vm")
			h := &hostswitch.Host{Switch: newSwitch(t, hostswitch.Config{}), Discoverer: find(v)}
			h.SetPause(atOnce)
			clock := turn(t, h)
			r := startHost(t, h)
			f := freeze(t, v)
			r.ready()
			r.wait(hostswitch.Connected)
			stop := knock(t, h.Switch)
			e := r.comes(clock, hostswitch.Stalled)
			stop()
			require.ErrorContains(t, e.Err, "connection with guest vm stalled: frames go out, none has come in for")
			require.ErrorContains(t, r.degraded(), "stalled")
			s := e.Snapshot
			require.Len(t, s.Ports, 1)
			require.Equal(t, "vm", s.Ports[0].Name)
			require.Positive(t, s.Ports[0].BytesIn)
			require.Positive(t, s.Ports[0].BytesOut)
			require.Positive(t, s.SinceLastFrame)
			require.Equal(t, guestMAC.String(), s.CAM[0].MAC)
			require.Equal(t, guestAddr(2), s.ARP[0].Addr)
			require.Equal(t, guestMAC.String(), s.ARP[0].MAC)
			select {
			case <-f.eof:
				require.Fail(t, "cut on suspicion")
			default:
			}
			end(t, v, r, f, clock)
			r.stop()
			require.Empty(t, r.events)
		})
	}
}

// Silence is no stall as long as nothing is asked of the guest.
func TestHostIdleIsNotStalled(t *testing.T) {
	v := newVM(t, "vm")
	h := &hostswitch.Host{Switch: newSwitch(t, hostswitch.Config{}), Discoverer: find(v)}
	clock := turn(t, h)
	other, loud, server := attach(t, h.Switch, 3), attachRaw(t, h.Switch, 4), hostTCP(t, echo)
	r := startHost(t, h)
	f := freeze(t, v)
	r.wait(hostswitch.Connected)
	// Others have conversations for much longer than the timeout, and tell all.
	for range 20 {
		loud.send(ethernet(loud.toAll(), markerType, 1))
		require.Equal(t, "x", exchange(t, other.dial(t, server), "x"))
		clock.pass(hostswitch.LookEvery)
	}
	clock.pass(hostswitch.LookEvery) // the Host has seen what was before
	select {
	case e := <-r.events:
		require.Fail(t, "not idle", "%s: %v", e.Kind, e.Err)
	default:
	}
	f.speak(f.marker("still here"))
	r.stop()
}

// A guest that connects while its first connection is well replaces that, with or
// without a handshake: the host does not know better.
func TestHostReplacesAConnection(t *testing.T) {
	v := newVM(t, "vm")
	r := startHost(t, &hostswitch.Host{Discoverer: find(v)})
	first := v.join()
	speak(t, first)
	r.ready()
	second := guestOn(t, v.connect())
	speak(t, second)
	require.ErrorContains(t, r.wait(hostswitch.Lost).Err, "connected again")
	await(t, first.Done(), "the end of the first")
	r.wait(hostswitch.Connected)
	_, err := second.DHCP(withTimeout(t))
	require.NoError(t, err)
	r.wait(hostswitch.Recovered)
	require.NoError(t, second.Err())
	r.stop()
}

// Whoever in the VM may open a socket can connect. That alone takes nothing from the
// guest: a connection has to have a frame before it replaces another.
func TestHostConnectingAloneReplacesNothing(t *testing.T) {
	v := newVM(t, "vm")
	h := &hostswitch.Host{Switch: newSwitch(t, hostswitch.Config{}), Discoverer: find(v)}
	clock := turn(t, h)
	r := startHost(t, h)
	g := v.join()
	speak(t, g)
	r.ready()
	r.wait(hostswitch.Connected)
	closed := func(c net.Conn) {
		t.Helper()
		await(t, during(func() { _, _ = io.Copy(io.Discard, c) }), "the connection to be closed")
	}
	first, second := v.connect(), v.connect()
	closed(first) // one at a time is on trial, the last
	done := during(func() { closed(second) })
	for waiting := true; waiting; {
		clock.pass(hostswitch.LookEvery)
		select {
		case <-done:
			waiting = false
		default:
		}
	}
	ports := func(n int) {
		t.Helper()
		eventually(t, func() bool { return len(h.Switch.Snapshot().Ports) == n }, "connections of the guest")
	}
	ports(1)
	third := v.connect()
	ports(2)
	require.NoError(t, third.Close()) // and goes by itself
	ports(1)
	_, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	require.Empty(t, r.events)
	require.NoError(t, g.Err())

	// It is the guest's after all when the other is gone.
	late := guestOn(t, v.connect())
	ports(2)
	require.NoError(t, g.Close())
	require.Equal(t, hostswitch.Lost, r.next("lost").Kind)
	require.Equal(t, hostswitch.Connected, r.next("connected").Kind)
	speak(t, late)
	require.Equal(t, hostswitch.Recovered, r.next("recovered").Kind)
	r.stop()
}

// Beside a stalled connection only the guest that has it is asked whether it has
// started anew: what another VM answers must not cut that.
func TestHostStallAsksTheGuestOnly(t *testing.T) {
	v, other := newVM(t, "vm"), newVM(t, "other")
	h := &hostswitch.Host{Switch: newSwitch(t, hostswitch.Config{}), Discoverer: find(v, other)}
	h.SetPause(atOnce)
	clock := turn(t, h)
	r := startHost(t, h)
	f := freeze(t, v)
	r.ready()
	r.wait(hostswitch.Connected)
	other.set(func(net.Conn) { t.Error("the other VM was asked") })
	stop := knock(t, h.Switch)
	r.comes(clock, hostswitch.Stalled)
	stop()
	v.set(v.once)
	require.Equal(t, "vm", r.next("found").Peer)
	require.ErrorContains(t, r.next("lost").Err, "answers the handshake again")
	await(t, f.eof, "the old connection to be closed")
	r.stop()
}
