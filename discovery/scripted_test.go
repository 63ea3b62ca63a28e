// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// A village is a set of peers over unix sockets that follow scripts, and its
// Source.
type village struct {
	t     *testing.T
	peers map[string]discovery.Peer // by name
	dials map[string]*atomic.Int32  // connections so far

	mu     sync.Mutex
	listed []discovery.Peer
}

func newVillage(t *testing.T) *village {
	return &village{t: t, peers: map[string]discovery.Peer{}, dials: map[string]*atomic.Int32{}}
}

func (v *village) Peers(context.Context) ([]discovery.Peer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.listed, nil
}

// list has the Source list these, and no others, from now on.
func (v *village) list(names ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listed = nil
	for _, name := range names {
		v.listed = append(v.listed, v.peers[name])
	}
}

// add makes a peer. The script is told which of its connections it has.
func (v *village) add(name string, script func(conn net.Conn, n int)) {
	v.t.Helper()
	dir := socketDir(v.t)
	peer := onlyPeer(v.t, discovery.Unix(dir))
	ln, err := peer.Listen(protocol.HandshakePort)
	require.NoError(v.t, err)
	require.FileExists(v.t, filepath.Join(dir, "6669.sock"))
	dials := new(atomic.Int32)
	v.peers[name], v.dials[name] = peer, dials
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			n := dials.Add(1)
			running.Go(func() {
				defer shut(conn)
				script(conn, int(n))
			})
		}
	})
	v.t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
}

func always(script func(net.Conn)) func(net.Conn, int) {
	return func(conn net.Conn, _ int) { script(conn) }
}

// ends sends nothing but EOF, and waits for the host to close.
func ends(conn net.Conn) {
	_ = conn.(*net.UnixConn).CloseWrite()
	silent(conn)
}

// search runs Discover in the background.
func (v *village) search(ctx context.Context, attempt time.Duration) <-chan outcome {
	done := make(chan outcome, 1)
	d := discoverer(v)
	d.Interval, d.AttemptTimeout = time.Millisecond, attempt
	go func() {
		p, err := d.Discover(ctx)
		done <- outcome{p, err}
	}()
	return done
}

type outcome struct {
	peer discovery.Peer
	err  error
}

func (v *village) finds(name string, done <-chan outcome) {
	v.t.Helper()
	got := <-done
	require.NoError(v.t, got.err)
	require.Equal(v.t, v.peers[name].ID(), got.peer.ID())
}

// dialled waits until a peer had so many connections.
func (v *village) dialled(name string, n int32) {
	v.t.Helper()
	require.Eventually(v.t, func() bool { return v.dials[name].Load() >= n }, 10*time.Second, time.Millisecond)
}

const noTimeout = time.Hour // in which nothing but an event ends an attempt

// TestScriptedNineHang: the right one of ten is found while nine hang, in as many
// ways as there are.
func TestScriptedNineHang(t *testing.T) {
	v := newVillage(t)
	names := []string{"right"}
	for i, script := range []func(net.Conn){silent, drip, says("g"), silent, drip, says(signature[:59]), silent, drip, silent} {
		name := strconv.Itoa(i)
		v.add(name, always(script))
		names = append([]string{name}, names...)
	}
	v.add("right", always(says(signature)))
	v.list(names...)
	before := descriptors(t)
	v.finds("right", v.search(t.Context(), noTimeout))
	for name, dials := range v.dials {
		require.LessOrEqual(t, dials.Load(), int32(1), "two attempts at a time on %s", name)
	}
	require.Eventually(t, func() bool { return descriptors(t) == before }, 10*time.Second, time.Millisecond, "open descriptors")
}

// TestScriptedSlowLoris: it is dropped at the attempt timeout, and asked again.
func TestScriptedSlowLoris(t *testing.T) {
	v := newVillage(t)
	v.add("loris", func(conn net.Conn, n int) {
		if n < 3 {
			drip(conn)
			return
		}
		says(signature)(conn)
	})
	v.list("loris")
	v.finds("loris", v.search(t.Context(), 20*time.Millisecond))
	require.GreaterOrEqual(t, v.dials["loris"].Load(), int32(3))
}

// TestScriptedWrongNowRightLater: whatever came before.
func TestScriptedWrongNowRightLater(t *testing.T) {
	v := newVillage(t)
	v.add("wsl", func(conn net.Conn, n int) {
		switch n {
		case 1:
			says(discovery.RancherDesktop2.Signature)(conn)
		case 2:
			ends(conn)
		case 3: // closed at once
		case 4:
			_, _ = conn.Write([]byte(signature[:30]))
		default:
			says(signature)(conn)
		}
	})
	v.list("wsl")
	v.finds("wsl", v.search(t.Context(), noTimeout))
	require.EqualValues(t, 5, v.dials["wsl"].Load())
}

// TestScriptedComeAndGo: who vanishes is hung up on, who is new is asked.
func TestScriptedComeAndGo(t *testing.T) {
	v := newVillage(t)
	hungUp := make(chan struct{})
	v.add("old", func(conn net.Conn, _ int) {
		silent(conn)
		close(hungUp)
	})
	v.add("new", always(says(signature)))
	v.list("old")
	done := v.search(t.Context(), noTimeout)
	v.dialled("old", 1)
	v.list()
	<-hungUp
	v.list("new")
	v.finds("new", done)
}

// TestScriptedCancel: at every step, with no descriptor left.
func TestScriptedCancel(t *testing.T) {
	v := newVillage(t)
	v.add("silent", always(silent))
	v.add("half", always(says(signature[:30])))
	v.add("wrong", always(says("something else that is longer than the signature, by a word or so")))
	v.list("silent", "half", "wrong")
	before := descriptors(t)
	for _, n := range []int32{0, 1, 2} {
		ctx, cancel := context.WithCancel(t.Context())
		asked := v.dials["wrong"].Load()
		done := v.search(ctx, noTimeout)
		v.dialled("wrong", asked+n)
		cancel()
		got := <-done
		require.ErrorIs(t, got.err, context.Canceled)
		require.Nil(t, got.peer)
	}
	require.Eventually(t, func() bool { return descriptors(t) == before }, 10*time.Second, time.Millisecond, "open descriptors")
}
