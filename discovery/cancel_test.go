// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// TestCancelAtEveryStep: Discover returns at once, with the error of its context,
// and has closed what was open.
func TestCancelAtEveryStep(t *testing.T) {
	const never = time.Hour
	for name, tc := range map[string]struct {
		source func(*vm) discovery.Source
		peer   *vm
		after  time.Duration
		dials  int
		says   string
	}{
		"before anything": {peer: &vm{script: says(signature)}, after: -1, says: "no peer found, 0 still being asked"},
		"while listing": {
			source: func(*vm) discovery.Source {
				return discovery.SourceFunc(func(ctx context.Context) ([]discovery.Peer, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				})
			},
			peer: &vm{}, after: time.Second / 2, says: "no peer found, 0 still",
		},
		"while dialling":               {peer: &vm{dial: hangs}, after: time.Second / 2, dials: 1, says: "1 still being asked"},
		"before the first byte":        {peer: &vm{script: silent}, after: time.Second / 2, dials: 1, says: "1 still being asked"},
		"after part of the signature":  {peer: &vm{script: drip}, after: 3*time.Second + time.Second/2, dials: 1, says: "1 still being asked"},
		"between two intervals":        {peer: &vm{dial: refuses}, after: 2*time.Second + time.Second/2, dials: 3, says: errDown.Error()},
		"as the signature is complete": {peer: &vm{script: delayed(time.Second)}, after: time.Second, dials: 1},
		"without a peer": {
			source: func(*vm) discovery.Source { return these() },
			peer:   &vm{}, after: time.Minute + time.Second/2, says: "no peer found, 0 still",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.peer.id = "p"
				source := these(tc.peer)
				if tc.source != nil {
					source = tc.source(tc.peer)
				}
				d := discoverer(source)
				d.AttemptTimeout = never
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.after < 0 {
					cancel()
				} else {
					time.AfterFunc(tc.after, cancel)
				}
				start := time.Now()
				p, err := d.Discover(ctx)
				require.Equal(t, max(0, tc.after), time.Since(start), "not at once")
				if tc.says != "" || err != nil { // a match at the same moment counts
					require.Nil(t, p)
					require.ErrorIs(t, err, context.Canceled)
					require.ErrorContains(t, err, tc.says)
				}
				dials, open, _ := tc.peer.stats()
				require.Zero(t, open, "connections left open")
				require.LessOrEqual(t, dials, max(tc.dials, 1))
				require.GreaterOrEqual(t, dials, tc.dials)
			})
		})
	}
}

// delayed sends the right signature after a while.
func delayed(d time.Duration) func(net.Conn) {
	return func(conn net.Conn) {
		<-time.After(d)
		says(signature)(conn)
	}
}

// TestALateDialIsClosed: FAILURES 5. A dial that connects after the search is
// over, lost or won by another, is closed, and Discover waits for it.
func TestALateDialIsClosed(t *testing.T) {
	for name, won := range map[string]bool{"cancelled": false, "another peer won": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				connect := make(chan struct{})
				late := &vm{id: "late", dial: func(context.Context) (net.Conn, error) {
					<-connect
					host, guest := net.Pipe()
					go says(signature)(guest)
					return host, nil
				}}
				other := &vm{id: "other", dial: refuses}
				if won {
					other = &vm{id: "other", script: delayed(time.Second)}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				var found discovery.Peer
				go func() {
					p, err := discoverer(these(late, other)).Discover(ctx)
					found = p
					done <- err
				}()
				pass(2 * time.Second)
				if !won {
					cancel()
				}
				synctest.Wait()
				require.Empty(t, done, "Discover returned while a dial was under way")
				close(connect)
				err := <-done
				_, open, _ := late.stats()
				require.Zero(t, open, "the late connection was left open")
				if won {
					require.NoError(t, err)
					require.Same(t, other, found)
				} else {
					require.ErrorIs(t, err, context.Canceled)
				}
				synctest.Wait()
			})
		})
	}
}

// TestALateListingIsWaitedFor: Discover has no goroutine left when it returns, also
// if the Source does not look at its context.
func TestALateListingIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		source := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			<-release
			return nil, errDown
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := discoverer(source).Discover(ctx)
			done <- err
		}()
		pass(time.Minute)
		require.Len(t, goroutines(), 2, "Discover and one listing")
		cancel()
		synctest.Wait()
		require.Empty(t, done, "Discover returned while a listing was under way")
		close(release)
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// TestDialsThatFinishDuringCancel: FAILURES 5. Dials, signatures and the end of
// the context meet in every order; nothing panics, races or stays.
func TestDialsThatFinishDuringCancel(t *testing.T) {
	for range 20 {
		var open atomic.Int32
		var peers []discovery.Peer
		ctx, cancel := context.WithCancel(t.Context())
		gate := make(chan struct{})
		for i := range 16 {
			peers = append(peers, &vm{id: fmt.Sprint(i), dial: func(context.Context) (net.Conn, error) {
				<-gate
				if rand.N(3) == 0 {
					return nil, errDown
				}
				host, guest := net.Pipe()
				open.Add(1)
				go func() {
					defer open.Add(-1)
					_, _ = io.WriteString(guest, signature[:rand.N(len(signature)+1)])
					silent(guest)
				}()
				return host, nil
			}})
		}
		go func() {
			close(gate)
			cancel()
		}()
		p, err := discoverer(these(peers...)).Discover(ctx)
		require.True(t, p != nil && err == nil || p == nil && err != nil, "%v, %v", p, err)
		for _, p := range peers {
			_, left, most := p.(*vm).stats()
			require.Zero(t, left)
			require.LessOrEqual(t, most, 1)
		}
		require.Eventually(t, func() bool { return open.Load() == 0 }, 10*time.Second, time.Millisecond)
	}
}

// A deafConn is one whose Close does not wake up who reads from it.
type deafConn struct{ net.Conn }

func (deafConn) Close() error { return nil }

// TestADeadlineEndsWhatCloseDoesNot: an attempt has both.
func TestADeadlineEndsWhatCloseDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := net.Pipe()
		defer shut(guest)
		defer shut(host)
		peer := &vm{id: "deaf", dial: func(context.Context) (net.Conn, error) { return deafConn{host}, nil }}
		start := time.Now()
		err := discoverer(these(peer)).SignalReady(t.Context(), peer)
		require.ErrorContains(t, err, "sent 0 of the 60 bytes")
		require.Equal(t, 5*time.Second, time.Since(start))
	})
}
