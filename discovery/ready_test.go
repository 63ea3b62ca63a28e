// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// TestProtocols: PROTOCOL.md. What released hosts and guests say cannot be changed.
func TestProtocols(t *testing.T) {
	require.Equal(t, discovery.Protocol{
		Signature:     "github.com/rancher-sandbox/rancher-desktop/src/go/networking",
		HandshakePort: 6669, DataPort: 6656,
	}, discovery.RancherDesktop)
	require.Equal(t, discovery.Protocol{
		Signature:     "github.com/rancher-sandbox/rancher-desktop-opensuse/src/go/networking",
		HandshakePort: 6670, DataPort: 6657,
	}, discovery.RancherDesktop2)
}

// TestSignalReady: the guest gets READY, all of it and nothing else, after its
// signature was read.
func TestSignalReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan string, 1)
		peer := &vm{id: "p", script: func(conn net.Conn) {
			_, _ = io.WriteString(conn, signature)
			buf := make([]byte, 6)
			n, _ := io.ReadAtLeast(conn, buf, 5)
			got <- string(buf[:n])
		}}
		start := time.Now()
		require.NoError(t, discoverer(these(peer)).SignalReady(t.Context(), peer))
		require.Equal(t, "READY", <-got)
		require.Zero(t, time.Since(start), "a guest that closes is not waited for")
		_, open, _ := peer.stats()
		require.Zero(t, open)
	})
}

// TestOneDiscovererIsUsedByMany: at once, and one call knows nothing of the others.
func TestOneDiscovererIsUsedByMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &vm{id: "p", script: delayed(time.Second)}
		d := discoverer(these(peer, &vm{id: "hangs", dial: hangs}))
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				p, err := d.Discover(t.Context())
				if err == nil {
					err = d.SignalReady(t.Context(), p)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		dials, open, _ := peer.stats()
		require.Equal(t, []int{16, 0}, []int{dials, open})
	})
}

// TestSignalReadyHalfClosesFirst: a connection that is closed at once could be
// reset before the guest has read from it.
func TestSignalReadyHalfClosesFirst(t *testing.T) {
	peer, ln := unixPeer(t, protocol.HandshakePort)
	type outcome struct {
		read  string
		write error
	}
	guest := make(chan outcome, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			guest <- outcome{write: err}
			return
		}
		defer shut(conn)
		_, _ = io.WriteString(conn, signature)
		read, _ := io.ReadAll(conn)
		_, err = io.WriteString(conn, "still there?")
		guest <- outcome{string(read), err}
	}()
	require.NoError(t, discoverer(these(peer)).SignalReady(t.Context(), peer))
	got := <-guest
	require.Equal(t, "READY", got.read)
	require.NoError(t, got.write, "the host had closed both directions")
}

// TestSignalReadyChecksAgain: between Discover and READY something else can have
// taken the port, and must not be told.
func TestSignalReadyChecksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan string, 1)
		peer := &vm{id: "p", script: func(conn net.Conn) {
			_, _ = io.WriteString(conn, "something of sixty bytes or more, so that it is read in full")
			read, _ := io.ReadAll(conn)
			got <- string(read)
		}}
		err := discoverer(these(peer)).SignalReady(t.Context(), peer)
		var mismatch *discovery.MismatchError
		require.ErrorAs(t, err, &mismatch)
		require.Empty(t, <-got)
	})
}

// TestSignalReadyIsBounded: by the attempt timeout and by its context, whatever
// the guest does.
func TestSignalReadyIsBounded(t *testing.T) {
	holds := func(conn net.Conn) {
		_, _ = io.WriteString(conn, signature)
		_, _ = io.ReadFull(conn, make([]byte, 5))
		silent(conn)
	}
	floods := func(conn net.Conn) {
		_, _ = io.WriteString(conn, signature)
		_, _ = io.ReadFull(conn, make([]byte, 5))
		for {
			if _, err := conn.Write(make([]byte, 16)); err != nil {
				return
			}
		}
	}
	deaf := func(conn net.Conn) {
		_, _ = io.WriteString(conn, signature)
		<-time.After(time.Hour)
	}
	for name, tc := range map[string]struct {
		peer   *vm
		cancel time.Duration
		takes  time.Duration
		want   error // nil: READY was sent
	}{
		"the dial hangs":                 {&vm{dial: hangs}, time.Hour, 5 * time.Second, context.DeadlineExceeded},
		"the dial hangs, cancelled":      {&vm{dial: hangs}, time.Second, time.Second, context.Canceled},
		"the dial fails":                 {&vm{dial: refuses}, time.Hour, 0, errDown},
		"no signature":                   {&vm{script: silent}, time.Hour, 5 * time.Second, context.DeadlineExceeded},
		"no signature, cancelled":        {&vm{script: silent}, time.Second, time.Second, context.Canceled},
		"half a signature":               {&vm{script: func(c net.Conn) { _, _ = io.WriteString(c, signature[:30]) }}, time.Hour, 0, io.ErrUnexpectedEOF},
		"never closes":                   {&vm{script: holds}, time.Hour, time.Second, nil},
		"never closes, cancelled":        {&vm{script: holds}, time.Second / 2, time.Second / 2, nil},
		"floods":                         {&vm{script: floods}, time.Hour, 0, nil},
		"does not read READY":            {&vm{script: deaf}, time.Hour, 5 * time.Second, context.DeadlineExceeded},
		"does not read READY, cancelled": {&vm{script: deaf}, time.Second, time.Second, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.peer.id = "p"
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				defer time.AfterFunc(tc.cancel, cancel).Stop()
				start := time.Now()
				err := discoverer(these()).SignalReady(ctx, tc.peer)
				require.Equal(t, tc.takes, time.Since(start))
				require.ErrorIs(t, err, tc.want)
				if tc.want != nil {
					require.ErrorContains(t, err, "discovery: peer p")
				}
				_, open, _ := tc.peer.stats()
				require.Zero(t, open)
				pass(2 * time.Hour) // a deaf guest wakes up and goes
			})
		})
	}
}
