// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testRestart: a guest is gone from one moment to the next, in the middle of
// transfers both ways, and comes back. What the host had begun with it breaks off,
// which never looks like an end; nothing of it stays; and what is begun anew is
// carried whole.
func testRestart(guest guestKind) func(*testing.T, programs) {
	return func(t *testing.T, p programs) {
		l := newBulkLab(t, p)
		relay := guest.start(l)
		idle := l.hostswitch.Descriptors()
		for round := range size(5, 2) {
			t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
				var begun []*endless
				for _, c := range l.four(t) {
					begun = append(begun, begin(c))
				}
				for _, e := range begun {
					e.moved.Wait()
				}
				relay.Signal(syscall.SIGKILL)
				require.Error(t, relay.Wait())
				for _, e := range begun {
					e.cutPower(t)
				}
				l.requireRest(t)
				for _, e := range begun {
					e.stopSending(t)
				}
				relay = guest.start(l)
				for _, e := range begun {
					e.requireBroken(t)
				}
				l.requireDescriptors(t, idle)
				carried(t, l.hostswitch, bothOf(l.four(t), size(64<<20, 4<<20))...)
			})
			l.requireDescriptors(t, idle)
		}
		l.requireRest(t)
		l.hostswitch.Signal(syscall.SIGQUIT) // it says what its goroutines do
		require.Error(t, l.hostswitch.Wait())
		require.Contains(t, l.hostswitch.Log.String(), "hostswitch.(*Switch).Serve")
		require.NotContains(t, l.hostswitch.Log.String(), "hostswitch.(*Switch).relay")
	}
}

// testRelayRestart: if only the relay is gone, the guest still has its ends of the
// connections when another relay comes, and they go on.
func testRelayRestart(t *testing.T, p programs) {
	l := newBulkLab(t, p)
	l.startGuest()
	for round := range size(5, 2) {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			var half sync.WaitGroup
			streams := bothOf(l.four(t), size(64<<20, 8<<20))
			half.Add(len(streams))
			for i := range streams {
				streams[i].half = half.Done
			}
			done := make(chan error, 1)
			go func() { done <- carry(streams...) }()
			half.Wait()
			l.guestswitch.Signal(syscall.SIGKILL)
			require.Error(t, l.guestswitch.Wait())
			l.startGuest()
			require.NoError(t, <-done)
		})
	}
}

// An ends is a connection between the host and a guest.
type ends struct{ host, guest net.Conn }

// four opens two connections from the guest, and two to it.
func (l *lab) four(t *testing.T) (four []ends) {
	t.Helper()
	for range 2 {
		guest, host := l.up(l.guest).connect(t)
		four = append(four, ends{host, guest})
		host, guest = l.exposed().connect(t)
		four = append(four, ends{host, guest})
	}
	return four
}

// bothOf are both directions of all of them.
func bothOf(all []ends, bytes int64) (streams []stream) {
	for _, e := range all {
		streams = append(streams, both(e.guest, e.host, bytes)...)
	}
	return streams
}

// endless is a connection that carries as much as it can in both directions.
type endless struct {
	ends
	moved       sync.WaitGroup // a megabyte each way, or broken
	guestEnd    sync.WaitGroup
	sent, heard chan error // of the host's end
}

func begin(c ends) *endless {
	e := &endless{ends: c, sent: make(chan error, 1), heard: make(chan error, 1)}
	e.moved.Add(2)
	hear := func(c net.Conn) error {
		err := pour(io.Discard, io.LimitReader(c, 1<<20))
		e.moved.Done()
		return errors.Join(err, pour(io.Discard, c))
	}
	e.guestEnd.Go(func() { _ = pour(c.guest, noise(0)) })
	e.guestEnd.Go(func() { _ = hear(c.guest) })
	go func() { e.sent <- pour(c.host, noise(1)) }()
	go func() { e.heard <- hear(c.host) }()
	return e
}

// cutPower is the end of the guest's end, of which nobody is told as the guest has
// no network.
func (e *endless) cutPower(t *testing.T) {
	t.Helper()
	require.NoError(t, e.guest.(*net.TCPConn).SetLinger(0))
	require.NoError(t, e.guest.Close())
	e.guestEnd.Wait()
}

// stopSending leaves the host's end to its reader: of a reset Linux tells one of the
// two, and the other sees what looks like an end.
func (e *endless) stopSending(t *testing.T) {
	t.Helper()
	require.NoError(t, e.host.SetWriteDeadline(time.Now()))
	require.ErrorIs(t, <-e.sent, os.ErrDeadlineExceeded, "before the guest was back")
}

func (e *endless) requireBroken(t *testing.T) {
	t.Helper()
	select {
	case err := <-e.heard:
		require.ErrorIs(t, err, syscall.ECONNRESET, "%v", e.host.LocalAddr())
	case <-time.After(patience):
		require.FailNow(t, "it does not break off", "%v", e.host.LocalAddr())
	}
	require.NoError(t, e.host.Close())
}

func (l *lab) requireDescriptors(t *testing.T, want int) {
	t.Helper()
	require.Eventually(t, func() bool { return l.hostswitch.Descriptors() == want }, patience, tick, "descriptors are left over")
}

// requireRest waits until the host does next to nothing.
func (l *lab) requireRest(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		before := l.hostswitch.CPU()
		<-time.After(10 * tick)
		return l.hostswitch.CPU()-before <= tick
	}, patience, tick, "the host keeps its processor busy")
}
