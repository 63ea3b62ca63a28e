// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// TestNineOfTenPeersHang: FAILURES 4 and 6. The tenth is found within one
// interval plus one attempt timeout of the moment from which it answers.
func TestNineOfTenPeersHang(t *testing.T) {
	for name, after := range map[string]time.Duration{
		"the tenth answers at once":            0,
		"the tenth answers after an interval":  time.Second + time.Millisecond,
		"the tenth answers after a minute":     time.Minute + 700*time.Millisecond,
		"the tenth answers as a listing comes": 10 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := time.Now().Add(after)
				right := &vm{id: "right", script: func(conn net.Conn) {
					if time.Now().Before(up) {
						silent(conn)
						return
					}
					says(signature)(conn)
				}}
				peers := []discovery.Peer{
					&vm{id: "1", script: silent}, &vm{id: "2", script: silent}, &vm{id: "3", script: silent},
					&vm{id: "4", script: drip}, &vm{id: "5", script: drip}, &vm{id: "6", script: drip},
					&vm{id: "7", dial: hangs}, &vm{id: "8", dial: hangs}, &vm{id: "9", dial: hangs},
					right,
				}
				d := discoverer(these(peers...))
				p, err := d.Discover(t.Context())
				require.NoError(t, err)
				require.Same(t, right, p)
				require.LessOrEqual(t, time.Since(up), d.Interval+5*time.Second)
				synctest.Wait()
				for _, p := range peers {
					_, open, most := p.(*vm).stats()
					require.Zero(t, open, "connections of peer %s left open", p.ID())
					require.Equal(t, 1, most, "attempts at a time on peer %s", p.ID())
				}
			})
		})
	}
}

// TestAHungDialCostsOneGoroutine: FAILURES 4. Not one more each second.
func TestAHungDialCostsOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		peer := &vm{id: "stuck", dial: func(context.Context) (net.Conn, error) {
			<-stuck // a transport that does not look at its context
			return nil, errDown
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := discoverer(these(peer)).Discover(ctx)
			done <- err
		}()
		pass(time.Hour)
		require.Len(t, goroutines(), 2, "Discover and one attempt")
		dials, _, _ := peer.stats()
		require.Equal(t, 1, dials)

		cancel()
		synctest.Wait()
		require.Empty(t, done, "Discover has returned before the attempt had")
		close(stuck)
		require.ErrorIs(t, <-done, context.Canceled)
		synctest.Wait()
		require.Empty(t, goroutines())
	})
}

// goroutines returns the stacks of those that are in the package under test.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return slices.DeleteFunc(stacks, func(s string) bool { return !strings.Contains(s, "guestnet/discovery.(") })
}

// TestSlowLorisIsDroppedAtTheAttemptTimeout: FAILURES 6.
func TestSlowLorisIsDroppedAtTheAttemptTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loris := &vm{id: "loris", script: drip}
		d := discoverer(these(loris))
		d.Interval = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := d.Discover(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Regexp(t, "peer loris sent [56] of the 60 bytes of the signature", err.Error())
		dials, open, _ := loris.stats()
		require.Equal(t, 1, dials)
		require.Zero(t, open)
	})
}

// TestAttemptTimeoutIsTheCallers: also where a longer one or none is asked for.
func TestAttemptTimeoutIsTheCallers(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"longer": 2 * time.Minute, "none": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := discoverer(these(&vm{id: "slow", script: drip}))
				d.AttemptTimeout = timeout
				p, err := d.Discover(t.Context())
				require.NoError(t, err)
				require.Equal(t, "slow", p.ID())
			})
		})
	}
}

// TestAMismatchIsTriedAgain: all WSL2 distros share one VM, so the wrong
// signature now can be the right one later.
func TestAMismatchIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		peer := &vm{id: "wsl", script: func(conn net.Conn) {
			if time.Since(start) < 3*time.Second {
				says(discovery.RancherDesktop2.Signature)(conn)
				return
			}
			says(signature + " and more, which is not read")(conn)
		}}
		d := discoverer(these(peer))
		d.Interval = 0 // the default
		p, err := d.Discover(t.Context())
		require.NoError(t, err)
		require.Same(t, peer, p)
		require.Equal(t, 3*time.Second, time.Since(start))
		dials, _, _ := peer.stats()
		require.Equal(t, 4, dials)
	})
}

// TestPeersComeAndGo: a new one is probed at the next listing, and the attempt on
// one that vanished ends there.
func TestPeersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, late := &vm{id: "gone", script: silent}, &vm{id: "late", script: says(signature)}
		start := time.Now()
		source := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			switch {
			case time.Since(start) < 2*time.Second:
				return []discovery.Peer{gone}, nil
			case time.Since(start) < 4*time.Second:
				return nil, nil
			default:
				return []discovery.Peer{late}, nil
			}
		})
		var log journal
		d := discoverer(source)
		d.Interval, d.AttemptTimeout, d.Logger = time.Second, time.Hour, log.logger()
		found := make(chan discovery.Peer, 1)
		go func() {
			p, _ := d.Discover(t.Context())
			found <- p
		}()
		pass(1500 * time.Millisecond)
		_, open, _ := gone.stats()
		require.Equal(t, 1, open, "while it is there, it is waited for")
		pass(time.Second)
		_, open, _ = gone.stats()
		require.Zero(t, open, "the peer has vanished and is still waited for")
		require.Empty(t, log.lines("peer gone"), "that its attempt was stopped is not its answer")
		require.Same(t, late, <-found)
		require.Equal(t, 4*time.Second, time.Since(start))
	})
}

// TestAPeerThatComesBackIsNotProbedTwice: its first attempt has not ended yet.
func TestAPeerThatComesBackIsNotProbedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var listed atomic.Int32
		peer := &vm{id: "flapping", dial: func(context.Context) (net.Conn, error) {
			<-release
			return nil, errDown
		}}
		source := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			if listed.Add(1)%2 == 0 {
				return nil, nil
			}
			return []discovery.Peer{peer, peer}, nil // twice in one list, too
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := discoverer(source).Discover(ctx)
			done <- err
		}()
		pass(10 * time.Second)
		_, open, most := peer.stats()
		require.Equal(t, []int{1, 1}, []int{open, most})
		close(release)
		pass(10 * time.Second)
		dials, _, most := peer.stats()
		require.Greater(t, dials, 1, "it is probed again")
		require.Equal(t, 1, most)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// TestManyPeers: at most 64 are probed at a time, and those that hang do not keep
// the others waiting for more than their timeout.
func TestManyPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open, most atomic.Int32
		var peers []discovery.Peer
		for i := range 150 {
			peers = append(peers, &vm{id: fmt.Sprint(i), dial: func(ctx context.Context) (net.Conn, error) {
				most.Store(max(most.Load(), open.Add(1)))
				defer open.Add(-1)
				return hangs(ctx)
			}})
		}
		right := &vm{id: "right", script: says(signature)}
		start := time.Now()
		p, err := discoverer(these(append(peers, right)...)).Discover(t.Context())
		require.NoError(t, err)
		require.Same(t, right, p)
		require.EqualValues(t, 64, most.Load())
		require.Equal(t, 10*time.Second, time.Since(start), "151 peers are three turns of 64")
	})
}

// TestWhoVanishesInLineIsNotDialled: its turn does not come.
func TestWhoVanishesInLineIsNotDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var peers []discovery.Peer
		for i := range 64 {
			peers = append(peers, &vm{id: fmt.Sprint(i), dial: hangs})
		}
		last := &vm{id: "last", script: says(signature)}
		start := time.Now()
		source := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
			if time.Since(start) > 0 {
				return peers, nil
			}
			return append(slices.Clone(peers), last), nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := discoverer(source).Discover(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		dials, _, _ := last.stats()
		require.Zero(t, dials)
	})
}

// TestMatch: FAILURES 35. Two VMs run the agent, and each of two hosts finds its
// own; the others are not even dialled.
func TestMatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := &vm{id: "one", script: says(signature)}, &vm{id: "two", script: says(signature)}
		other := &vm{id: "other", script: says(signature)}
		source := these(other, one, two)
		for _, want := range []*vm{one, two} {
			d := discoverer(source)
			d.Match = func(p discovery.Peer) bool { return p.ID() == want.id }
			p, err := d.Discover(t.Context())
			require.NoError(t, err)
			require.Same(t, want, p)
		}
		for _, v := range []*vm{one, two} {
			dials, _, _ := v.stats()
			require.Equal(t, 1, dials, v.id)
		}
		dials, _, _ := other.stats()
		require.Zero(t, dials)
	})
}

// TestErrorSaysWhatWasReceived: quoted, and not more than 64 bytes of it.
func TestErrorSaysWhatWasReceived(t *testing.T) {
	hostile := "\x1b[2J\x00\xff" + strings.Repeat("A", 1000)
	for name, tc := range map[string]struct{ sent, want, text string }{
		"another protocol": {discovery.RancherDesktop2.Signature, discovery.RancherDesktop2.Signature[:60], `"github.com/rancher-sandbox/rancher-desktop-opensuse`},
		"shorter, ends":    {"SSH-2.0\r\n", "SSH-2.0\r\n", `peer p sent "SSH-2.0\r\n" in place of the signature`},
		"hostile":          {hostile, hostile[:60], `"\x1b[2J\x00\xffAAA`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := discoverer(these(&vm{id: "p", script: func(conn net.Conn) { _, _ = conn.Write([]byte(tc.sent)) }}))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := d.Discover(ctx)
				var mismatch *discovery.MismatchError
				require.ErrorAs(t, err, &mismatch)
				require.Equal(t, &discovery.MismatchError{Peer: "p", Received: tc.want}, mismatch)
				require.ErrorContains(t, err, tc.text)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		d := discoverer(these(&vm{id: "p", script: says(strings.Repeat("x", 1000))}))
		d.Protocol.Signature = strings.Repeat("y", 1000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := d.Discover(ctx)
		var mismatch *discovery.MismatchError
		require.ErrorAs(t, err, &mismatch)
		require.Len(t, mismatch.Received, 64)
	})
}
