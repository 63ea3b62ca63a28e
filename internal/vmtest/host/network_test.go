// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

package host_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
)

// testNetwork: a Host finds the guest, carries its frames and recovers, by itself,
// each time that the guest is killed and started again (FAILURES 17). A port that
// it exposes works in each life of the guest.
func testNetwork(t *testing.T) {
	answerGuest(t, talk.BeginPort)
	var config net.ListenConfig
	outward, err := config.Listen(t.Context(), "tcp", "127.0.0.1"+talk.Outward)
	require.NoError(t, err)
	defer outward.Close() //nolint:errcheck // nothing is left in it

	h := startHost(t)
	for life := range talk.Kills + 1 {
		h.next(hostswitch.Found)
		require.Len(t, h.next(hostswitch.Connected).Snapshot.Ports, 1)
		if life > 0 {
			snapshot := h.next(hostswitch.Recovered).Snapshot
			require.Len(t, snapshot.Ports, 1)
			require.Len(t, snapshot.Forwards, 1)
			require.Len(t, snapshot.Leases, 1)
		}
		require.NoError(t, outward.(*net.TCPListener).SetDeadline(time.Now().Add(talk.Patience)))
		conn, err := outward.Accept()
		require.NoError(t, err, "life %d", life)
		inward, err := new(net.Dialer).DialContext(t.Context(), "tcp", talk.Exposed)
		require.NoError(t, err)
		require.NoError(t, talk.Ask(inward, talk.Short), "through the exposed port, life %d", life)
		require.NoError(t, inward.Close())
		require.NoError(t, talk.Answer(conn)) // and only then may the agent be killed
		require.NoError(t, conn.Close())
		if life < talk.Kills {
			e := h.next(hostswitch.Lost)
			require.Positive(t, e.Up)
			require.Len(t, e.Snapshot.Ports, 1, "as it was")
			require.Len(t, e.Snapshot.Forwards, 1)
		}
	}
	answerGuest(t, talk.EndPort)
	h.end()
	require.NoError(t, <-h.done)
}

// A hosting is a running Host.
type hosting struct {
	t      *testing.T
	end    context.CancelFunc
	done   chan error // what Run returned
	events chan hostswitch.Event
}

func startHost(t *testing.T) *hosting {
	h := &hosting{t: t, done: make(chan error, 1), events: make(chan hostswitch.Event, 1024)}
	host := hostswitch.Host{
		Config: hostswitch.Config{Forwards: []hostswitch.Forward{{Local: talk.Exposed, Remote: talk.Inward}}},
		Discoverer: &discovery.Discoverer{
			Source:         discovery.CIDs(uint32(*guest)),
			Protocol:       discovery.RancherDesktop,
			AttemptTimeout: talk.Patience,
		},
		ConnectTimeout: talk.Patience,
		StallTimeout:   talk.Patience,
		OnEvent: func(e hostswitch.Event) {
			t.Log(e.Kind, e.Peer, e.Err)
			h.events <- e
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.done <- host.Run(ctx)
	}()
	t.Cleanup(func() { <-stopped }) // the test's context has ended before
	h.end = cancel
	return h
}

// next returns the Host's next event, which has to be of that kind.
func (h *hosting) next(kind hostswitch.EventKind) hostswitch.Event {
	h.t.Helper()
	for {
		select {
		case e := <-h.events:
			switch e.Kind {
			case hostswitch.Exposed, hostswitch.Leased: // of its Switch
			case hostswitch.Waiting, hostswitch.Short: // depend on how fast the machine is
			default:
				require.Equal(h.t, kind, e.Kind, "%v: %v", e.Kind, e.Err)
				require.Equal(h.t, fmt.Sprint(*guest), e.Peer)
				return e
			}
		case err := <-h.done:
			require.Failf(h.t, "the Host has ended", "waiting for: %v, error: %v", kind, err)
		case <-time.After(talk.Patience):
			require.Failf(h.t, "the Host tells nothing", "waiting for: %v", kind)
		}
	}
}
