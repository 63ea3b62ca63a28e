// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// TestSourceErrors: one line for each change, not for each second, and the search
// goes on, with the peers that it knows.
func TestSourceErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		known := &vm{id: "known", script: func(conn net.Conn) {
			if time.Since(start) < 30*time.Second {
				silent(conn)
				return
			}
			says(signature)(conn)
		}}
		source := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			switch since := time.Since(start); {
			case since < 10*time.Second:
				return nil, errors.New("access denied")
			case since < 20*time.Second:
				return nil, errors.New("no memory")
			default:
				return []discovery.Peer{known}, nil
			}
		})
		var log journal
		d := discoverer(source)
		d.Logger = log.logger()
		p, err := d.Discover(t.Context())
		require.NoError(t, err)
		require.Same(t, known, p)
		require.Len(t, log.lines("access denied"), 1)
		require.Len(t, log.lines("no memory"), 1)
		require.Len(t, log.lines("lists peers again"), 1)
		require.Len(t, log.lines("0 of the 60 bytes"), 1)
		require.Len(t, log.lines(""), 4)
	})
}

// TestAttemptsGoOnWhileTheSourceFails: what was known stays known.
func TestAttemptsGoOnWhileTheSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &vm{id: "slow", script: func(conn net.Conn) {
			<-time.After(3 * time.Second)
			says(signature)(conn)
		}}
		var listed atomic.Bool
		source := discovery.SourceFunc(func(ctx context.Context) ([]discovery.Peer, error) {
			if listed.Swap(true) {
				return nil, errDown
			}
			return []discovery.Peer{slow}, nil
		})
		p, err := discoverer(source).Discover(t.Context())
		require.NoError(t, err)
		require.Same(t, slow, p)
	})
}

// TestAHungListingIsGivenUp: at the attempt timeout; the next one may work.
func TestAHungListingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &vm{id: "p", script: says(signature)}
		var listed atomic.Bool
		source := discovery.SourceFunc(func(ctx context.Context) ([]discovery.Peer, error) {
			if listed.Swap(true) {
				return []discovery.Peer{peer}, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		start := time.Now()
		p, err := discoverer(source).Discover(t.Context())
		require.NoError(t, err)
		require.Same(t, peer, p)
		require.LessOrEqual(t, time.Since(start), 6*time.Second)
	})
}

// TestOutcomesAreLoggedWhenTheyChange: not each second, but again for a peer that
// was gone meanwhile.
func TestOutcomesAreLoggedWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		peer := &vm{id: "p", dial: refuses}
		source := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			if since := time.Since(start); since > 20*time.Second && since < 30*time.Second {
				return nil, nil
			}
			return []discovery.Peer{peer}, nil
		})
		var log journal
		d := discoverer(source)
		d.Logger = log.logger()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := d.Discover(ctx)
		require.ErrorIs(t, err, errDown)
		require.Len(t, log.lines(errDown.Error()), 2)
		require.Len(t, log.lines(""), 2)
	})
}

// TestASlowSourceHoldsNothingUp: a result counts while a listing hangs.
func TestASlowSourceHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		peer := &vm{id: "slow", script: func(conn net.Conn) {
			<-time.After(2 * time.Second)
			says(signature)(conn)
		}}
		var listed atomic.Int32
		source := discovery.SourceFunc(func(ctx context.Context) ([]discovery.Peer, error) {
			if listed.Add(1) > 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []discovery.Peer{peer}, nil
		})
		p, err := discoverer(source).Discover(t.Context())
		require.NoError(t, err)
		require.Same(t, peer, p)
		require.Equal(t, 2*time.Second, time.Since(start))
		require.EqualValues(t, 2, listed.Load(), "one listing at a time")
	})
}
