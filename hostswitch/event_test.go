// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// tell returns a channel for a Config's OnEvent.
func tell() (chan hostswitch.Event, func(hostswitch.Event)) {
	events := make(chan hostswitch.Event, 4096)
	return events, func(e hostswitch.Event) { events <- e }
}

// next returns the next event, which has to be of that kind.
func next(t testing.TB, events <-chan hostswitch.Event, kind hostswitch.EventKind) hostswitch.Event {
	t.Helper()
	e := await(t, events, kind.String())
	require.Equal(t, kind.String(), e.Kind.String())
	require.False(t, e.Time.IsZero())
	require.False(t, e.Snapshot.Time.IsZero())
	if kind != hostswitch.Lost {
		require.False(t, e.Snapshot.Time.Before(e.Time), "taken when it is delivered")
	}
	return e
}

func TestEvents(t *testing.T) {
	events, on := tell()
	sw := newSwitch(t, hostswitch.Config{OnEvent: on})
	g := attach(t, sw, 2)
	require.Equal(t, "guest 2", next(t, events, hostswitch.Connected).Peer)
	g.lease(t)
	require.Equal(t, "guest 2", next(t, events, hostswitch.Leased).Peer)

	f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	e := next(t, events, hostswitch.Exposed)
	require.Equal(t, &f, e.Forward, "with the port that was bound")
	require.Empty(t, e.Peer, "by the host")
	require.NoError(t, sw.Unexpose("tcp", f.Local))
	require.Equal(t, &f, next(t, events, hostswitch.Unexposed).Forward)

	status, body := call(t, g.http(), http.MethodPost, gatewayAPI+"/services/forwarder/expose", `{"local":"127.0.0.1:0","remote":":80"}`)
	require.Equal(t, http.StatusOK, status, body)
	require.Equal(t, "192.168.127.2", next(t, events, hostswitch.Exposed).Peer)
	status, _ = call(t, g.http(), http.MethodPost, gatewayAPI+"/services/forwarder/expose", `{"local":"127.0.0.1:0","remote":"192.168.127.1:80"}`)
	require.Equal(t, http.StatusBadRequest, status)
	e = next(t, events, hostswitch.Refused)
	require.Equal(t, "192.168.127.2", e.Peer)
	require.ErrorIs(t, e.Err, hostswitch.ErrForwardInvalid)

	tick()
	g.unplug()
	e = next(t, events, hostswitch.Lost)
	require.Equal(t, "guest 2", e.Peer)
	require.Positive(t, e.Up)
	require.NoError(t, e.Err, "it simply unplugged")
	require.Len(t, e.Snapshot.Ports, 1, "what was lost can be seen")
	require.Positive(t, e.Snapshot.Ports[0].FramesIn)

	attachRaw(t, sw, 3)
	require.Equal(t, "guest 3", next(t, events, hostswitch.Connected).Peer)
	require.NoError(t, sw.Close())
	require.Equal(t, "guest 3", next(t, events, hostswitch.Lost).Peer, "Close delivers what is left")
	require.Empty(t, events)
}

// Events come one at a time, and who is slow loses the oldest, not the network.
func TestEventsOfASlowHandler(t *testing.T) {
	const more = 3000
	release := make(chan struct{})
	var running, told atomic.Int64
	var last atomic.Pointer[hostswitch.Event]
	sw := newSwitch(t, hostswitch.Config{OnEvent: func(e hostswitch.Event) {
		if running.Add(1) != 1 {
			panic("two events at a time")
		}
		<-release
		told.Add(1)
		last.Store(&e)
		running.Add(-1)
	}})
	for range more / 2 {
		f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
		require.NoError(t, sw.Unexpose("tcp", f.Local))
	}
	final := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	close(release)
	require.NoError(t, sw.Close())
	require.Equal(t, final, *last.Load().Forward, "the newest is there")
	require.LessOrEqual(t, told.Load(), int64(1024+1))
	require.Greater(t, told.Load(), int64(1000))
}

// FAILURES 36: a guest that is not the one the forwards are for is told of, with
// what to do.
func TestLeaseMismatch(t *testing.T) {
	events, on := tell()
	sw := newSwitch(t, hostswitch.Config{OnEvent: on})
	stranger := attachRaw(t, sw, 9)
	next(t, events, hostswitch.Connected)
	stranger.lease(t)
	next(t, events, hostswitch.Leased)

	expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	next(t, events, hostswitch.Exposed)
	got := stranger.lease(t).YourIPAddr // the same again is no news, but that nothing reaches it is
	e := next(t, events, hostswitch.LeaseMismatch)
	var mismatch *hostswitch.LeaseMismatchError
	require.ErrorAs(t, e.Err, &mismatch)
	require.Equal(t, macOf(9), packet.MAC(mismatch.MAC))
	require.Equal(t, got.String(), mismatch.Addr.String())
	require.Equal(t, "192.168.127.2", mismatch.Reserved.String())
	for _, part := range []string{"02:00:00:00:00:09", "192.168.127.2", "5a:94:ef:e4:0c:ee", "Config.Leases"} {
		require.ErrorContains(t, e.Err, part)
	}

	right := attachRaw(t, sw, 2)
	next(t, events, hostswitch.Connected)
	right.lease(t)
	next(t, events, hostswitch.Leased)
	stranger.lease(t)
	require.NoError(t, sw.Close())
	next(t, events, hostswitch.Lost)
	next(t, events, hostswitch.Lost)
	require.Empty(t, events, "no warning while the right one is there")
}

func TestEventKinds(t *testing.T) {
	require.Equal(t, "lease mismatch", hostswitch.LeaseMismatch.String())
	require.Equal(t, "EventKind(99)", hostswitch.EventKind(99).String())
}
