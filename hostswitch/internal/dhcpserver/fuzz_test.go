// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package dhcpserver_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/dhcpserver"
)

var kinds = []dhcpv4.MessageType{
	dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeDecline,
	dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeInform,
}

// check requires that a reply is one, and gives its client nothing that is not
// there to be given.
func check(t *testing.T, cfg dhcpserver.Config, client net.HardwareAddr, r dhcpserver.Reply) {
	m, err := dhcpv4.FromBytes(r.Payload)
	require.NoError(t, err)
	require.Equal(t, dhcpv4.OpcodeBootReply, m.OpCode)
	require.Equal(t, client, m.ClientHWAddr)
	require.True(t, m.ServerIdentifier().Equal(cfg.Gateway.AsSlice()))
	require.LessOrEqual(t, len(r.Payload), 1500-28)
	require.EqualValues(t, 68, r.Dst.Port())
	yours, _ := netip.AddrFromSlice(m.YourIPAddr)
	if r.Dst != toAll {
		require.True(t, cfg.Subnet.Contains(r.Dst.Addr()))
		require.Equal(t, client, r.DstMAC)
	}
	if yours.IsUnspecified() {
		require.Nil(t, r.Lease)
		return
	}
	require.False(t, r.Nak)
	require.True(t, cfg.Subnet.Contains(yours))
	require.NotContains(t, append(cfg.Reserved, cfg.Gateway, netip.MustParseAddr("192.168.127.0"), ip("192.168.127.7"), ip("192.168.127.255")), yours)
	for a, owner := range cfg.Static {
		require.Equal(t, a == yours, owner.String() == client.String())
	}
	if r.Lease != nil {
		require.Equal(t, dhcpv4.MessageTypeAck, m.MessageType())
		require.Equal(t, yours, r.Lease.Addr)
		require.Equal(t, client, r.Lease.MAC)
	}
}

// Whatever a guest sends: no panic, and never what is not its own.
func FuzzHandle(f *testing.F) {
	for _, kind := range kinds {
		for _, from := range []net.HardwareAddr{guestMAC, mac(1), mac(2)} {
			f.Add(message(kind, from, server(gateway), wants(ip("192.168.127.3"))).ToBytes())
			f.Add(message(kind, from, ciaddr(guest), hostname("x"), requests(dhcpv4.OptionBroadcastAddress)).ToBytes())
			f.Add(message(kind, from, wants(alias), dhcpv4.WithBroadcast(true)).ToBytes())
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		n := newNetwork(t, nil)
		taken := n.take(2, mac(2))
		var src net.HardwareAddr
		if len(payload) >= 34 {
			src = payload[28:34]
		}
		r, ok := n.Handle(1, src, payload)
		if !ok {
			return
		}
		cfg := defaults()
		check(t, cfg, src, r)
		lease, ok := n.Lookup(mac(2))
		require.True(t, ok, "another port cannot take a lease away")
		require.Equal(t, taken, lease.Addr)
		if r.Lease != nil && r.Lease.Addr == taken {
			require.Equal(t, mac(2), src)
		}
	})
}

// Any order of messages, from a few clients and ports in a pool of three, with
// the clock going on: what Leases says stays true to what was said to the clients.
func FuzzConversation(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 1, 3, 0, 2, 0, 1, 2, 4, 2, 1, 3, 0, 1, 0})
	f.Add([]byte{1, 1, 3, 1, 0x42, 0x43, 0, 0x83, 3, 0, 0x84, 4, 0, 0x85, 5})
	f.Add([]byte{0x80, 0, 0, 1, 1, 3, 0x90, 2, 3, 1, 2, 3, 3, 1, 3, 1, 3, 3})
	f.Fuzz(func(t *testing.T, program []byte) {
		n := newNetwork(t, small)
		cfg := defaults()
		small(&cfg)
		told := map[netip.Addr]dhcpserver.Lease{} // by the last ACK
		detached := map[netip.Addr]bool{}
		for ; len(program) >= 3; program = program[3:] {
			op, who, what := program[0], program[1], program[2]
			client, port := mac(int(who%8)), uint64(who>>6)
			if who%8 == 0 {
				client = guestMAC
			}
			var options []option
			if addr := netip.AddrFrom4([4]byte{192, 168, 127, what % 9}); what%9 < 8 {
				if op&0x08 != 0 {
					options = append(options, ciaddr(addr))
				} else {
					options = append(options, wants(addr))
				}
			}
			if what&0x80 != 0 {
				options = append(options, server(netip.AddrFrom4([4]byte{192, 168, 127, what >> 4 & 1})))
			}
			n.now = n.now.Add(time.Duration(op>>4) * time.Duration(op>>4) * 20 * time.Second)

			if what&0x40 != 0 {
				n.Detach(port)
				for a, l := range told {
					if l.Port == port && !l.Static {
						detached[a] = true
					}
				}
			}
			m := message(kinds[int(op%8)%len(kinds)], client, options...)
			if r, ok := n.Handle(port, client, m.ToBytes()); ok {
				check(t, cfg, client, r)
				if r.Lease != nil {
					old, held := told[r.Lease.Addr]
					require.False(t, held && !detached[r.Lease.Addr] && old.MAC.String() != client.String() && n.now.Before(old.Expires), "two clients have one address")
					require.Equal(t, held && !detached[r.Lease.Addr] && n.now.Before(old.Expires) && old.MAC.String() == client.String() && old.Port == port, r.Renewed)
					told[r.Lease.Addr] = *r.Lease
					delete(detached, r.Lease.Addr)
				}
			}
			switch m.MessageType() {
			case dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline: // what may have ended a lease
				for a, l := range told {
					if !n.now.Before(l.Expires) {
						delete(told, a)
					} else if now, ok := n.Lookup(l.MAC); !ok || now.Addr != a || now.Expires.IsZero() {
						require.Equal(t, client, l.MAC)
						delete(told, a)
					}
				}
			}
			seen := map[string]bool{}
			for _, l := range n.Leases() {
				require.False(t, seen[l.MAC.String()], "two leases of one client")
				seen[l.MAC.String()] = true
				owner, ok := n.Owner(l.Addr, n.now)
				require.True(t, ok)
				require.Equal(t, l.MAC, net.HardwareAddr(owner[:]))
				if !l.Static {
					require.Equal(t, told[l.Addr], l)
				}
			}
		}
	})
}
