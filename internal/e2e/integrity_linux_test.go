// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house/process"
)

// Where bulk goes: to a port that all have, by way of one on the host for guests.
const (
	portBulk      = "2003"
	forwardedBulk = "127.0.0.1:8203"
)

// Of a container behind the guest, and of the guest on its bridge.
const (
	bridgeAddr    = "10.88.0.1"
	containerAddr = "10.88.0.2"
)

// newBulkLab is a lab whose host has a way for bulk into the guest.
func newBulkLab(t *testing.T, p programs) *lab {
	t.Helper()
	return newLab(t, p, "-forward", "tcp:"+forwardedBulk+"="+guestAddr+":"+portBulk)
}

// up is a route from a guest, or from what is behind it, to the host's loopback.
func (l *lab) up(from *namespace) route {
	return route{from, l.host, hostAlias + ":" + portBulk, "127.0.0.1:" + portBulk}
}

// exposed is a route through the host's port into the guest.
func (l *lab) exposed() route {
	return route{l.host, l.guest, forwardedBulk, "0.0.0.0:" + portBulk}
}

// testIntegrity: what goes in at full speed comes out, by every path: a gigabyte
// with -soak.
func testIntegrity(guest guestKind) func(*testing.T, programs) {
	return func(t *testing.T, p programs) {
		l := newBulkLab(t, p)
		guest.start(l)
		n := size(1<<30, 8<<20)
		t.Run("up", func(t *testing.T) {
			client, server := l.up(l.guest).connect(t)
			before, _ := tryLink(l.guest, guest.iface)
			carried(t, l.hostswitch, stream{from: client, to: server, bytes: n})
			after, _ := tryLink(l.guest, guest.iface)
			guest.requireFrames(t, before.Stats64.TX, after.Stats64.TX)
		})
		t.Run("down", func(t *testing.T) {
			client, server := l.up(l.guest).connect(t)
			before, _ := tryLink(l.guest, guest.iface)
			carried(t, l.hostswitch, stream{from: server, to: client, bytes: n})
			after, _ := tryLink(l.guest, guest.iface)
			guest.requireFrames(t, before.Stats64.RX, after.Stats64.RX)
		})
		t.Run("four up and four down at once", func(t *testing.T) {
			var streams []stream
			for range 4 {
				client, server := l.up(l.guest).connect(t)
				streams = append(streams, both(client, server, n/4)...)
			}
			carried(t, l.hostswitch, streams...)
		})
		t.Run("exposed port, both ways at once", func(t *testing.T) {
			client, server := l.exposed().connect(t)
			carried(t, l.hostswitch, both(client, server, n)...)
		})
		behind := l.container()
		t.Run("container, up", func(t *testing.T) {
			client, server := l.up(behind).connect(t)
			carried(t, l.hostswitch, stream{from: client, to: server, bytes: n})
		})
		t.Run("container, down", func(t *testing.T) {
			client, server := l.up(behind).connect(t)
			carried(t, l.hostswitch, stream{from: server, to: client, bytes: n})
		})
	}
}

// size is full with -soak, and otherwise what there is time for.
func size(full, small int64) int64 {
	if *soak {
		return full
	}
	return small
}

// A guestKind is one of the guests that there are.
type guestKind struct {
	start   func(l *lab, args ...string) *process.Process
	iface   string
	offload bool // its frames may stand for several
}

var (
	offloadGuest = guestKind{(*lab).startGuest, "eth0", true}
	plainGuest   = guestKind{func(l *lab, args ...string) *process.Process {
		return l.startGuest(append(args, "-framing", "plain")...)
	}, "eth0", false}
	oldGuest = guestKind{func(l *lab, _ ...string) *process.Process { return l.startGvforwarder() }, "tap0", false}
)

// requireFrames tells by the frames that have passed in the direction of bulk whether
// they were those of offload: longer than the MTU lets one be, on average.
func (k guestKind) requireFrames(t *testing.T, before, after counter) {
	t.Helper()
	bytes, packets := after.Bytes-before.Bytes, after.Packets-before.Packets
	require.Positive(t, packets)
	require.Equal(t, k.offload, bytes > 1514*packets, "%d bytes in %d frames", bytes, packets)
}

// container makes a namespace behind the guest, whose MTU and way to the world are
// those that Docker gives its containers.
func (l *lab) container() *namespace {
	l.t.Helper()
	n := newNamespace(l.t, "container")
	l.guest.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", n.name)
	l.guest.run("ip", "addr", "add", bridgeAddr+"/24", "dev", "veth0")
	l.guest.run("ip", "link", "set", "veth0", "up")
	l.guest.sysctl("net.ipv4.ip_forward", "1")
	l.guest.run("iptables", "-w", "10", "-t", "nat", "-A", "POSTROUTING", "-s", containerAddr, "-j", "MASQUERADE")
	n.run("ip", "addr", "add", containerAddr+"/24", "dev", "eth0")
	n.run("ip", "link", "set", "eth0", "up")
	n.run("ip", "route", "add", "default", "via", bridgeAddr)
	return n
}
