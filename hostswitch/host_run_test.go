// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/lifecycle"
)

// permanent is what lifecycle looks for.
type permanent interface{ Permanent() bool }

// What another try does not mend ends Run and says so.
func TestHostErrorsThatArePermanent(t *testing.T) {
	closed := newSwitch(t, hostswitch.Config{})
	require.NoError(t, closed.Close())
	v := newVM(t, "vm")
	v.set(v.residual)
	v.refuseListen(foreverError{})
	for name, c := range map[string]struct {
		host *hostswitch.Host
		says string
	}{
		"no Discoverer":            {&hostswitch.Host{}, "Host.Discoverer"},
		"a Discoverer without VMs": {&hostswitch.Host{Discoverer: look(nil)}, "Discoverer.Source is nil"},
		"the network":              {&hostswitch.Host{Discoverer: find(), Config: hostswitch.Config{MTU: 1}}, "Config.MTU"},
		"a forward": {&hostswitch.Host{Discoverer: find(), Config: hostswitch.Config{
			Forwards: []hostswitch.Forward{{Local: "nonsense", Remote: ":80"}},
		}}, "Config.Forwards[0]"},
		"a Source that never will": {&hostswitch.Host{Discoverer: look(discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			return nil, foreverError{}
		}))}, "never will"},
		"a peer that never will": {&hostswitch.Host{Discoverer: find(v)}, "hostswitch: host: listen for guest vm: never will"},
		"a closed Switch":        {&hostswitch.Host{Discoverer: find(), Switch: closed}, "the switch is closed"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				err := c.host.Run(withTimeout(t))
				require.ErrorContains(t, err, c.says)
				var p permanent
				require.ErrorAs(t, err, &p)
				require.True(t, p.Permanent())
			}
		})
	}
}

type foreverError struct{}

func (foreverError) Error() string   { return "never will" }
func (foreverError) Permanent() bool { return true }

// The port may be free the next time.
func TestHostForwardThatIsTaken(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	h := &hostswitch.Host{Discoverer: find(), Config: hostswitch.Config{
		Forwards: []hostswitch.Forward{{Local: ln.Addr().String(), Remote: "192.168.127.2:80"}},
	}}
	err = h.Run(withTimeout(t))
	require.ErrorIs(t, err, hostswitch.ErrForwardExists)
	var p permanent
	require.False(t, errors.As(err, &p) && p.Permanent())
	require.NoError(t, ln.Close())
	r := startHost(t, h)
	require.Equal(t, hostswitch.Exposed, r.next("exposed").Kind)
	r.stop()
}

func TestHostRunsOnceAtATime(t *testing.T) {
	v := newVM(t, "vm")
	h := &hostswitch.Host{Discoverer: find(v)}
	for range 3 {
		r := startHost(t, h)
		speak(t, v.join())
		r.ready()
		require.ErrorIs(t, h.Run(t.Context()), hostswitch.ErrRunning)
		r.stop()
	}
}

// A Switch of somebody else's is left as it is.
func TestHostWithAGivenSwitch(t *testing.T) {
	v, sw := newVM(t, "vm"), newSwitch(t, hostswitch.Config{})
	f, err := sw.Expose(t.Context(), hostswitch.Forward{Local: "127.0.0.1:0", Remote: "192.168.127.2:80"})
	require.NoError(t, err)
	h := &hostswitch.Host{Switch: sw, Discoverer: find(v)}
	for range 2 {
		r := startHost(t, h)
		g := v.join()
		_, err := g.DHCP(withTimeout(t))
		require.NoError(t, err)
		ln, err := g.Listen("tcp", ":80")
		require.NoError(t, err)
		serve(t, ln, echo)
		require.Equal(t, "in", hostExchange(t, f.Local, "in"))
		r.stop()
		require.Empty(t, sw.Snapshot().Ports)
		require.Equal(t, []hostswitch.Forward{f}, sw.Forwards())
	}

	r := startHost(t, h)
	g := v.join()
	speak(t, g)
	r.ready()
	require.NoError(t, sw.Close())
	err = await(t, r.done, "the end of Run")
	require.ErrorIs(t, err, hostswitch.ErrClosed)
	require.ErrorIs(t, err, net.ErrClosed)
	await(t, g.Done(), "the end of the guest's connection")
	require.True(t, v.listener().isClosed())
}

// FAILURES 1 and 14: a hundred runs, each with a guest, and the process is as it
// was. The same host port every time.
func TestHostHundredRunsLeaveNothing(t *testing.T) {
	dir, local := shortDir(t), freePort(t)
	h := &hostswitch.Host{
		Config:      hostswitch.Config{Forwards: []hostswitch.Forward{{Local: local, Remote: "192.168.127.2:80"}}},
		Discoverer:  look(discovery.Unix(dir)),
		ReportEvery: time.Hour,
		OnGuest:     func(ctx context.Context, _ discovery.Peer) error { <-ctx.Done(); return nil },
	}
	cycles := func(n int) func(t *testing.T) {
		return func(t *testing.T) {
			for range n {
				h.OnEvent = nil
				r := startHost(t, h)
				g := unixGuest(t, dir)
				speak(t, g)
				r.ready()
				r.stop()
				require.NoError(t, g.Close())
			}
		}
	}
	t.Run("warm up", cycles(2))
	before := measure()
	t.Run("cycles", cycles(100))
	settles(t, before)
}

// What the Switch tells reaches the Host's OnEvent too, unless Config.OnEvent is
// there for it. Each connection begins and ends once.
func TestHostPassesOnTheEventsOfItsSwitch(t *testing.T) {
	v := newVM(t, "vm")
	forward := hostswitch.Forward{Local: freePort(t), Remote: "192.168.127.2:80"}
	for name, own := range map[string]bool{"one handler": false, "two": true} {
		t.Run(name, func(t *testing.T) {
			h := &hostswitch.Host{Discoverer: find(v), Config: hostswitch.Config{Forwards: []hostswitch.Forward{forward}}}
			h.SetPause(never)
			ofSwitch := make(chan hostswitch.Event, 64)
			if own {
				h.Config.OnEvent = func(e hostswitch.Event) { ofSwitch <- e }
			}
			var busy atomic.Bool
			ofHost := make(chan hostswitch.Event, 64)
			h.OnEvent = func(e hostswitch.Event) {
				if !busy.CompareAndSwap(false, true) {
					t.Error("two at a time")
				}
				ofHost <- e
				busy.Store(false)
			}
			r := startHost(t, h)
			g := v.join()
			_, err := g.DHCP(withTimeout(t))
			require.NoError(t, err)
			r.ready()
			require.NoError(t, g.Close())
			for err := r.degraded(); !strings.Contains(err.Error(), "lost"); err = r.degraded() {
				continue
			}
			r.stop()
			count := func(from chan hostswitch.Event) map[hostswitch.EventKind]int {
				n := map[hostswitch.EventKind]int{}
				for len(from) > 0 {
					e := <-from
					require.False(t, e.Snapshot.Time.IsZero())
					n[e.Kind]++
				}
				return n
			}
			host, sw := count(ofHost), count(ofSwitch)
			want := map[hostswitch.EventKind]int{hostswitch.Found: 1, hostswitch.Connected: 1, hostswitch.Lost: 1}
			if !own {
				want[hostswitch.Exposed], want[hostswitch.Leased] = 1, 1
				require.Empty(t, sw)
			} else {
				require.Equal(t, 1, sw[hostswitch.Exposed])
				require.Equal(t, 1, sw[hostswitch.Leased])
				require.Equal(t, 1, sw[hostswitch.Connected])
				require.Equal(t, 1, sw[hostswitch.Lost])
			}
			require.Equal(t, want, host)
		})
	}
}

func TestHostSaysThatItWaits(t *testing.T) {
	h := &hostswitch.Host{Discoverer: find()}
	clock := turn(t, h)
	r := startHost(t, h)
	for range 3 {
		clock.pass(hostswitch.WaitingEvery)
		require.Equal(t, hostswitch.Waiting, r.next("waiting").Kind)
	}
	r.stop()
}

func TestHostSaysThatItWaitsForTheGuestToComeBack(t *testing.T) {
	v := newVM(t, "vm")
	h := &hostswitch.Host{Discoverer: find(v)}
	clock := turn(t, h)
	h.SetPause(atOnce)
	r := startHost(t, h)
	g := v.join()
	r.wait(hostswitch.Connected)
	require.NoError(t, g.Close())
	require.Equal(t, hostswitch.Lost, r.next("lost").Kind)
	_ = r.degraded() // it waits from now on
	for range 3 {
		clock.pass(hostswitch.WaitingEvery)
		require.Equal(t, hostswitch.Waiting, r.next("waiting").Kind)
	}
	r.stop()
}

func TestHostLogsReports(t *testing.T) {
	log := newJournal()
	r := startHost(t, &hostswitch.Host{Discoverer: find(), Logger: log.logger(), ReportEvery: time.Millisecond})
	eventually(t, func() bool { return log.has("network snapshot=") }, "a report")
	r.stop()
}

// As a task of a Supervisor: its state is what the guest's network is. A test may
// know both packages; they fit by structure.
func TestHostUnderASupervisor(t *testing.T) {
	states := make(chan lifecycle.Status, 64)
	s := lifecycle.New(lifecycle.Config{OnChange: func(st lifecycle.Status) { states <- st }, Restart: lifecycle.Restart{Min: time.Millisecond}})
	defer s.Close() //nolint:errcheck // always nil
	v := newVM(t, "vm")
	h := &hostswitch.Host{Discoverer: find(v)}
	h.SetPause(atOnce)
	require.NoError(t, s.Start(t.Context(), "network", h))
	is := func(state lifecycle.State) lifecycle.Status {
		t.Helper()
		st := await(t, states, state.String())
		require.Equal(t, state, st.State, "%v", st.Err)
		return st
	}
	is(lifecycle.Starting)
	g := v.join()
	speak(t, g)
	is(lifecycle.Ready)
	require.NoError(t, g.Close())
	require.ErrorContains(t, is(lifecycle.Degraded).Err, "lost")
	speak(t, v.join())
	is(lifecycle.Ready)
	require.NoError(t, s.Stop(t.Context(), "network"))
	is(lifecycle.Stopping)
	require.NoError(t, is(lifecycle.Stopped).Err)

	// A wrong configuration is not tried again.
	require.NoError(t, s.Start(t.Context(), "network", &hostswitch.Host{}))
	is(lifecycle.Starting)
	require.ErrorContains(t, is(lifecycle.Failed).Err, "Host.Discoverer")
}
