// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

// Package host_test is the host's end of the tests in machines.
package host_test

import (
	"context"
	"flag"
	"net"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
)

var guest = flag.Uint("guest", 0, "CID of the guest")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHost(t *testing.T) {
	require.True(t, t.Run("Stream", testStream)) // else the other end is lost
	require.True(t, t.Run("Network", testNetwork))
	// The place for hostswitch.Host: its guest has to be a child of the guest's
	// program (which can start itself), to be killed and started again.
}

// testStream: who a peer is, and how streams end, either end first.
func testStream(t *testing.T) {
	ln, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, talk.HostPort, nil)
	require.NoError(t, err)
	defer ln.Close()                                                  //nolint:errcheck // nothing is left in it
	require.NoError(t, ln.SetDeadline(time.Now().Add(talk.Patience))) // the guest's machine may still boot
	conn, err := ln.Accept()
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // Answer has sent everything
	require.Equal(t, uint32(*guest), conn.RemoteAddr().(*vsock.Addr).ContextID)
	require.NoError(t, talk.Answer(conn))

	conn, err = vsock.DialContext(t.Context(), uint32(*guest), talk.GuestPort, nil)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // as above
	require.NoError(t, talk.Answer(conn))

	_, err = vsock.DialContext(t.Context(), uint32(*guest), talk.NobodysPort, nil)
	require.ErrorIs(t, err, unix.ECONNRESET, "nobody listens there")
}

// testNetwork: a guest is found, told that all is ready, and connects its tap to
// a Switch; then it does it all again.
func testNetwork(t *testing.T) {
	d := discovery.Discoverer{
		Source:         discovery.CIDs(uint32(*guest)),
		Protocol:       discovery.RancherDesktop,
		AttemptTimeout: talk.Patience,
	}
	peer := discover(t, &d)
	data, err := peer.Listen(d.Protocol.DataPort)
	require.NoError(t, err)
	lost := make(chan hostswitch.Event, talk.Rounds)
	sw, err := hostswitch.New(hostswitch.Config{OnEvent: func(e hostswitch.Event) {
		t.Log(e.Kind, e.Peer, e.Err)
		if e.Kind == hostswitch.Lost {
			lost <- e
		}
	}})
	require.NoError(t, err)
	defer sw.Close() //nolint:errcheck // always nil
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- sw.Serve(ctx, data) }()
	defer func() {
		cancel()
		require.ErrorIs(t, <-served, hostswitch.ErrClosed)
	}()

	var config net.ListenConfig
	outward, err := config.Listen(t.Context(), "tcp", "127.0.0.1"+talk.Outward)
	require.NoError(t, err)
	defer outward.Close() //nolint:errcheck // nothing is left in it
	forward, err := sw.Expose(t.Context(), hostswitch.Forward{Local: "127.0.0.1:0", Remote: talk.Inward})
	require.NoError(t, err)

	for round := range talk.Rounds {
		if round > 0 {
			peer = discover(t, &d)
		}
		require.NoError(t, d.SignalReady(t.Context(), peer))
		require.NoError(t, outward.(*net.TCPListener).SetDeadline(time.Now().Add(talk.Patience)))
		conn, err := outward.Accept()
		require.NoError(t, err, "round %d", round)
		last := round == talk.Rounds-1
		if last { // whoever is to end the connection has to be answered last
			require.NoError(t, talk.Answer(conn))
		}
		var dialer net.Dialer
		inward, err := dialer.DialContext(t.Context(), "tcp", forward.Local)
		require.NoError(t, err)
		require.NoError(t, talk.Ask(inward, talk.Short), "through the exposed port, round %d", round)
		require.NoError(t, inward.Close())
		if !last {
			require.NoError(t, talk.Answer(conn))
		}
		require.NoError(t, conn.Close())

		if !last {
			select {
			case e := <-lost:
				require.NoError(t, e.Err)
			case <-time.After(talk.Patience):
				require.Fail(t, "the guest's connection does not end")
			}
		}
	}
	require.NoError(t, sw.Close())
}

func discover(t *testing.T, d *discovery.Discoverer) discovery.Peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), talk.Patience)
	defer cancel()
	peer, err := d.Discover(ctx)
	require.NoError(t, err)
	return peer
}
