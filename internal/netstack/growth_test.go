// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// What a guest can make the host hold by opening many connections.
func TestTheMoreConnectionsTheLessTheirBuffersGrow(t *testing.T) {
	p := newPair(t, 1500)
	grow := func(want int, when string) {
		t.Helper()
		send, receive, err := p.router.MaxBuffers()
		require.NoError(t, err)
		require.Equal(t, [2]int{want, 2 * want}, [2]int{send, receive}, when)
	}
	grow(netstack.MaxTCPBuffer, "none")
	var conns []*netstack.Conn
	open := func(n int) {
		for range n {
			_, c := p.connect(t)
			conns = append(conns, c)
		}
	}
	const many = netstack.AllTCPBuffers / netstack.MaxTCPBuffer
	open(many - 1)
	grow(netstack.MaxTCPBuffer, "fewer than that")
	open(1)
	grow(netstack.MaxTCPBuffer/2, "as many")
	for name, end := range map[string]func(*netstack.Conn) error{"Close": (*netstack.Conn).Close, "Abort": (*netstack.Conn).Abort} {
		last := conns[len(conns)-1]
		require.NoError(t, end(last))
		require.NoError(t, end(last))
		grow(netstack.MaxTCPBuffer, name)
		open(1) // one that is closed twice counts once
		grow(netstack.MaxTCPBuffer/2, "after "+name)
	}
	open(many)
	grow(netstack.MaxTCPBuffer/4, "twice as many")
}

// What a released guest forwards for others has room for some hundred frames in its tap,
// and is lost where the window is larger: FAILURES 40.
func TestWindowStaysSmallForWhoHasLittleRoom(t *testing.T) {
	for name, wide := range map[string]bool{"little room": false, "room": true} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 1500)
			asked := 0
			p.wide = func(src packet.MAC) bool {
				require.Equal(t, guestMAC, src)
				asked++ // by the one that reads
				return wide
			}
			from, to := p.connect(t)
			uploaded := during(func() {
				for b := make([]byte, 1<<20); ; {
					if _, err := from.Write(b); err != nil {
						return
					}
				}
			})
			require.NoError(t, to.SetDeadline(time.Now().Add(patience)))
			for b := make([]byte, 2*netstack.MaxTCPBuffer); asked < 2 && to.ReceiveBuffer() <= netstack.NarrowBuffer; {
				<-time.After(10 * time.Millisecond) // a buffer grows only if there is much at once
				_, err := to.Read(b)
				require.NoError(t, err)
			}
			require.Equal(t, wide, to.ReceiveBuffer() > netstack.NarrowBuffer)
			require.NoError(t, to.Abort())
			await(t, uploaded, "Write")
		})
	}
}
