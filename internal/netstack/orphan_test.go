// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
)

// What was closed while the peer had not taken all of it is bounded, however many there
// are: beyond that the oldest is reset. Nobody else's is.
func TestClosedConnectionsThatDoNotEndAreBounded(t *testing.T) {
	// The send buffer has room for it, the guest's receive buffer, which is a small one
	// here, for a third: the rest is never taken.
	const size = 6 * netstack.LeastBuffer
	const most, many = 1 << 20, 40
	for name, end := range map[string]func(*netstack.Conn) error{
		"Close":                  (*netstack.Conn).Close,
		"Close after CloseWrite": func(c *netstack.Conn) error { return errors.Join(c.CloseWrite(), c.CloseWrite(), c.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 1500)
			p.router.MayHaveOrphans(most)
			require.NoError(t, p.guest.PretendConnections(10_000))
			guest := uint64(guestMAC[5])
			var ends []*netstack.Conn
			for range many {
				g, r := p.connect(t)
				require.NoError(t, g.SetReadDeadline(time.Now().Add(patience)))
				require.NoError(t, r.SetDeadline(time.Now().Add(patience)))
				_, err := r.Write(make([]byte, size))
				require.NoError(t, err)
				require.NoError(t, g.CloseWrite())
				_, err = r.Read(make([]byte, 1))
				require.ErrorIs(t, err, io.EOF)
				require.NoError(t, end(r))
				require.NoError(t, r.Close())
				ends = append(ends, g)
			}
			require.LessOrEqual(t, p.router.Orphans(guest), most)
			require.Greater(t, p.router.Orphans(guest), most/2)
			_, err := io.Copy(io.Discard, ends[0])
			require.ErrorIs(t, err, netstack.ErrReset, "the oldest")
			got, err := io.ReadAll(ends[many-1])
			require.NoError(t, err, "the newest")
			require.True(t, bytes.Equal(make([]byte, size), got))
		})
	}
}

// What has ended is forgotten, whichever side ended it and how.
func TestClosedConnectionsThatEndAreForgotten(t *testing.T) {
	p := newPair(t, 1500)
	guest := uint64(guestMAC[5])
	for name, end := range map[string]func(guest, router *netstack.Conn){
		"the guest first": func(g, r *netstack.Conn) {
			require.NoError(t, g.Close())
			_, _ = io.Copy(io.Discard, r)
			require.NoError(t, r.Close())
		},
		"the router first": func(g, r *netstack.Conn) {
			require.NoError(t, r.Close())
			require.GreaterOrEqual(t, p.router.Orphans(guest), netstack.OrphanWeight)
			_, _ = io.Copy(io.Discard, g)
			require.NoError(t, g.Close())
		},
		"a reset": func(g, r *netstack.Conn) {
			require.NoError(t, r.Close())
			require.NoError(t, g.Abort())
		},
	} {
		g, r := p.connect(t)
		require.NoError(t, g.SetReadDeadline(time.Now().Add(patience)))
		require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
		end(g, r)
		require.Eventually(t, func() bool { return p.router.Orphans(guest) == 0 }, patience, time.Millisecond, name)
	}
}
