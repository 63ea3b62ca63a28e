// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

type forGood struct{ error }

func (forGood) Permanent() bool { return true }

func TestWhatCanNeverWorkEndsTheSearch(t *testing.T) {
	broken := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
		return nil, fmt.Errorf("listing: %w", forGood{errDown})
	})
	_, err := discoverer(broken).Discover(t.Context())
	require.ErrorContains(t, err, errDown.Error())
	requirePermanent(t, err)

	for what, spoil := range map[string]func(*discovery.Discoverer){
		"Discoverer.Source":      func(d *discovery.Discoverer) { d.Source = nil },
		"Protocol.Signature":     func(d *discovery.Discoverer) { d.Protocol.Signature = "" },
		"Protocol.HandshakePort": func(d *discovery.Discoverer) { d.Protocol.HandshakePort = 0 },
		"Protocol.DataPort":      func(d *discovery.Discoverer) { d.Protocol.DataPort = 0 },
		"Discoverer.Interval":    func(d *discovery.Discoverer) { d.Interval = -1 },
	} {
		t.Run(what, func(t *testing.T) {
			peer := &vm{id: "untouched", script: says(signature)}
			d := discoverer(these(peer))
			spoil(d)
			_, err := d.Discover(t.Context())
			require.ErrorContains(t, err, what)
			requirePermanent(t, err)
			err = d.SignalReady(t.Context(), peer)
			require.ErrorContains(t, err, what)
			requirePermanent(t, err)
			dials, _, _ := peer.stats()
			require.Zero(t, dials)
		})
	}
}

// TestTheEndOfTheContextIsNotPermanent: what one peer's dial says of itself ends
// neither the search, in which another may be the right one, nor its caller.
func TestTheEndOfTheContextIsNotPermanent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := &vm{id: "never", dial: func(context.Context) (net.Conn, error) { return nil, forGood{errDown} }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := discoverer(these(never)).Discover(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, forGood{errDown}, "it tells what went wrong last")
		var p interface{ Permanent() bool }
		require.False(t, errors.As(err, &p) && p.Permanent(), err.Error())
		dials, _, _ := never.stats()
		require.Greater(t, dials, 1)

		right := &vm{id: "right", script: delayed(2 * time.Second)}
		found, err := discoverer(these(never, right)).Discover(t.Context())
		require.NoError(t, err)
		require.Same(t, right, found)
		requirePermanent(t, discoverer(these()).SignalReady(t.Context(), never))
	})
}

// TestThePermanentErrorIsTheOne: also if the context ends while an attempt is
// waited for.
func TestThePermanentErrorIsTheOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		stuck := &vm{id: "stuck", dial: func(context.Context) (net.Conn, error) {
			<-release
			return nil, errDown
		}}
		var listed atomic.Bool
		source := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			if listed.Swap(true) {
				return nil, forGood{errors.New("broken")}
			}
			return []discovery.Peer{stuck}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := discoverer(source).Discover(ctx)
			done <- err
		}()
		pass(2 * time.Second)
		cancel()
		close(release)
		err := <-done
		require.ErrorContains(t, err, "broken")
		requirePermanent(t, err)
	})
}

func requirePermanent(t *testing.T, err error) {
	t.Helper()
	var p interface{ Permanent() bool }
	require.ErrorAs(t, err, &p)
	require.True(t, p.Permanent())
	require.True(t, strings.HasPrefix(err.Error(), "discovery: "), err.Error())
	require.Equal(t, 1, strings.Count(err.Error(), "discovery: "), err.Error())
}
