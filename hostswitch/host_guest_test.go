// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/hostswitch"
)

// What runs for a guest has ended before the next guest's begins, and outlives the
// connections of one.
func TestHostOnGuestFollowsTheVM(t *testing.T) {
	one, two := newVM(t, "one"), newVM(t, "two")
	var running atomic.Int32
	begun, ended := make(chan string, 8), make(chan string, 8)
	h := &hostswitch.Host{Discoverer: find(one, two), OnGuest: func(ctx context.Context, p discovery.Peer) error {
		if running.Add(1) != 1 {
			t.Error("two at a time")
		}
		begun <- p.ID()
		<-ctx.Done()
		running.Add(-1)
		ended <- p.ID()
		return ctx.Err()
	}}
	h.SetPause(atOnce)
	r := startHost(t, h)
	for range 3 {
		g := one.join()
		speak(t, g)
		r.ready()
		require.NoError(t, g.Close())
		r.wait(hostswitch.Lost)
	}
	require.Equal(t, "one", await(t, begun, "OnGuest"))
	require.Empty(t, begun)
	require.Empty(t, ended)

	old := one.listener()
	speak(t, two.join())
	r.ready()
	require.Equal(t, "one", await(t, ended, "the end of OnGuest"))
	require.Equal(t, "two", await(t, begun, "OnGuest"))
	require.True(t, old.isClosed())
	r.stop()
	require.Equal(t, "two", await(t, ended, "the end of OnGuest"))
	require.Zero(t, running.Load())
	for len(r.events) > 0 {
		require.NotEqual(t, hostswitch.GuestFailed, r.next("").Kind, "the end was asked for")
	}
}

// An error of OnGuest is told and tried again, and harms nothing else; nil is the
// end of it.
func TestHostOnGuestThatFails(t *testing.T) {
	v := newVM(t, "vm")
	failed := errors.New("no docker socket")
	calls := make(chan int, 16)
	n := 0
	h := &hostswitch.Host{Discoverer: find(v), OnGuest: func(context.Context, discovery.Peer) error {
		n++
		calls <- n
		if n < 4 {
			return failed
		}
		return nil
	}}
	h.SetPause(atOnce)
	r := startHost(t, h)
	g := v.join()
	for range 3 {
		e := r.wait(hostswitch.GuestFailed)
		require.Equal(t, "vm", e.Peer)
		require.ErrorIs(t, e.Err, failed)
	}
	speak(t, g)
	r.ready()
	require.NoError(t, g.Close())
	r.wait(hostswitch.Lost)
	speak(t, v.join()) // the same VM
	r.ready()
	r.stop()
	require.Len(t, calls, 4)
}

// Bridges drain when another VM is found. Nobody waits for that but the bridges of
// the other.
func TestHostDoesNotWaitForBridges(t *testing.T) {
	one, two := newVM(t, "one"), newVM(t, "two")
	began, release := make(chan string, 2), make(chan struct{})
	h := &hostswitch.Host{Discoverer: find(one, two), OnGuest: func(ctx context.Context, p discovery.Peer) error {
		began <- p.ID()
		<-ctx.Done()
		<-release
		return nil
	}}
	h.SetPause(atOnce)
	r := startHost(t, h)
	g := one.join()
	speak(t, g)
	r.ready()
	require.Equal(t, "one", await(t, began, "OnGuest"))
	require.NoError(t, g.Close())
	r.wait(hostswitch.Lost)
	_ = r.degraded()
	speak(t, two.join())
	r.ready()
	require.Empty(t, began)
	close(release)
	require.Equal(t, "two", await(t, began, "OnGuest"))
	r.stop()
}

// FAILURES 35: several VMs in one process, each with its network.
func TestTwoHostsAreToldApartByMatch(t *testing.T) {
	one, two := newVM(t, "one"), newVM(t, "two")
	start := func(id string) (*hosting, *hostswitch.Switch) {
		d := find(one, two)
		d.Match = func(p discovery.Peer) bool { return p.ID() == id }
		sw := newSwitch(t, hostswitch.Config{})
		return startHost(t, &hostswitch.Host{Switch: sw, Discoverer: d}), sw
	}
	hostOne, switchOne := start("one")
	hostTwo, switchTwo := start("two")
	guestTwo, guestOne := two.join(), one.join()
	for g, is := range map[string]struct {
		r  *hosting
		sw *hostswitch.Switch
	}{"one": {hostOne, switchOne}, "two": {hostTwo, switchTwo}} {
		require.Equal(t, g, is.r.wait(hostswitch.Found).Peer)
		require.Equal(t, g, is.r.wait(hostswitch.Connected).Peer)
		require.Len(t, is.sw.Snapshot().Ports, 1)
		require.Equal(t, g, is.sw.Snapshot().Ports[0].Name)
	}
	for _, g := range []interface {
		SendFrame([]byte) error
	}{guestOne, guestTwo} {
		require.NoError(t, g.SendFrame((&guest{mac: guestMAC}).marker("here")))
	}
	hostOne.ready()
	hostTwo.ready()
	require.NoError(t, guestOne.Close())
	hostOne.wait(hostswitch.Lost)
	require.NoError(t, guestTwo.Err())
	require.Empty(t, hostTwo.events)
	hostOne.stop()
	hostTwo.stop()
}

// The end comes at once, whatever the Host is about, and leaves nothing
// (FAILURES 1, 8 and 15). It is no error, neither in a return nor in the log.
func TestHostEndsInEveryPhase(t *testing.T) {
	// Each waits until the Host is where its name says, in a world of its own.
	phases := map[string]func(t *testing.T, v *vm, h *hostswitch.Host) func(r *hosting){
		"listing peers": func(t *testing.T, v *vm, h *hostswitch.Host) func(*hosting) {
			asked := make(chan struct{}, 1)
			h.Discoverer.Source = discovery.SourceFunc(func(ctx context.Context) ([]discovery.Peer, error) {
				asked <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			})
			return func(*hosting) { await(t, asked, "Peers") }
		},
		"nobody there": func(*testing.T, *vm, *hostswitch.Host) func(*hosting) {
			return func(*hosting) {}
		},
		"a peer that is silent": func(t *testing.T, v *vm, _ *hostswitch.Host) func(*hosting) {
			dialled := make(chan struct{}, 1024)
			v.set(func(conn net.Conn) { dialled <- struct{}{}; _, _ = conn.Read(make([]byte, 1)) })
			return func(*hosting) { await(t, dialled, "a dial") }
		},
		"READY is not taken": func(_ *testing.T, v *vm, _ *hostswitch.Host) func(*hosting) {
			v.set(func(conn net.Conn) {
				_, _ = conn.Write([]byte(protocol.Signature))
				_, _ = conn.Write([]byte("and more than anybody reads"))
			})
			return func(*hosting) { v.heard("listen") }
		},
		"waiting for the connection": func(_ *testing.T, v *vm, _ *hostswitch.Host) func(*hosting) {
			v.set(v.once)
			return func(*hosting) { v.heard("READY") }
		},
		"pausing after a phantom": func(t *testing.T, v *vm, h *hostswitch.Host) func(*hosting) {
			clock := turn(t, h)
			h.SetPause(never)
			v.set(v.residual)
			return func(r *hosting) { clock.pass(hostswitch.ConnectTimeout); r.wait(hostswitch.Phantom); _ = r.degraded() }
		},
		"a connection without a frame": func(_ *testing.T, v *vm, _ *hostswitch.Host) func(*hosting) {
			return func(r *hosting) { v.join(); r.wait(hostswitch.Connected) }
		},
		"a network that works": func(t *testing.T, v *vm, _ *hostswitch.Host) func(*hosting) {
			return func(r *hosting) { speak(t, v.join()); r.ready() }
		},
		"a stalled connection": func(t *testing.T, v *vm, h *hostswitch.Host) func(*hosting) {
			h.Switch = newSwitch(t, hostswitch.Config{})
			clock := turn(t, h)
			return func(r *hosting) {
				freeze(t, v)
				r.wait(hostswitch.Connected)
				defer knock(t, h.Switch)()
				r.comes(clock, hostswitch.Stalled)
				_ = r.degraded()
			}
		},
		"pausing after a loss": func(_ *testing.T, v *vm, h *hostswitch.Host) func(*hosting) {
			h.SetPause(never)
			return func(r *hosting) { _ = v.join().Close(); r.wait(hostswitch.Lost); _ = r.degraded() }
		},
		"OnGuest pauses": func(t *testing.T, v *vm, h *hostswitch.Host) func(*hosting) {
			h.SetPause(never)
			h.OnGuest = func(context.Context, discovery.Peer) error { return errors.New("fails") }
			return func(r *hosting) { v.join(); r.wait(hostswitch.GuestFailed) }
		},
	}
	for name, phase := range phases {
		t.Run(name, func(t *testing.T) {
			before := measure()
			t.Run("then cancel", func(t *testing.T) {
				v := newVM(t, "vm")
				log := newJournal()
				h := &hostswitch.Host{Discoverer: find(v), Logger: log.logger(), ReportEvery: time.Hour}
				reach := phase(t, v, h)
				r := startHost(t, h)
				reach(r)
				warned := log.from(slog.LevelWarn)
				for len(r.reports) > 0 {
					_ = await(t, r.reports, "a report")
				}
				r.stop()
				require.Empty(t, r.reports, "the end was asked for")
				require.Equal(t, warned, log.from(slog.LevelWarn), "the end was asked for")
				if ln := v.listener(); ln != nil {
					require.True(t, ln.isClosed())
				}
			})
			settles(t, before)
		})
	}
}

// FAILURES 8: a Host that is busy when it is told to end does not mistake what ends
// with it for trouble.
func TestHostEndWhileBusy(t *testing.T) {
	for range 5 {
		v, log, events := newVM(t, "vm"), newJournal(), make(chan hostswitch.Event, 64)
		h := &hostswitch.Host{Discoverer: find(v), Logger: log.logger(), OnEvent: func(e hostswitch.Event) { events <- e }}
		ctx, cancel := context.WithCancel(withTimeout(t))
		reported, proceed := make(chan error, 64), make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- h.RunReporting(ctx, func(err error) { reported <- err; <-proceed })
		}()
		g := v.join()
		speak(t, g)
		require.NoError(t, await(t, reported, "Ready"))
		cancel()
		select {
		case <-g.Done(): // it would end beside the busy Host
		case <-time.After(10 * time.Millisecond):
		}
		close(proceed)
		require.NoError(t, await(t, done, "the end of Run"))
		require.Empty(t, reported)
		require.Empty(t, log.from(slog.LevelWarn))
		require.Equal(t, hostswitch.Found, (<-events).Kind)
		require.Equal(t, hostswitch.Connected, (<-events).Kind)
		for len(events) > 0 { // of the Switch, as it is closed
			require.NotEqual(t, hostswitch.Lost, (<-events).Kind)
		}
	}
}

// Whatever runs beside the Host has ended when Run returns, slow or not.
func TestHostJoinsTheHandshake(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	r := startHost(t, &hostswitch.Host{Discoverer: look(discovery.SourceFunc(func(ctx context.Context) ([]discovery.Peer, error) {
		close(asked)
		<-ctx.Done()
		<-release
		return nil, ctx.Err()
	}))})
	await(t, asked, "Peers")
	r.end()
	select {
	case err := <-r.done:
		require.Fail(t, "Run has not waited", "%v", err)
	case <-time.After(10 * time.Millisecond):
	}
	close(release)
	require.NoError(t, await(t, r.done, "the end of Run"))
}
