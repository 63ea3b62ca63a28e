// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package dhcpserver_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/dhcpserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	gateway  = ip("192.168.127.1")
	guest    = ip("192.168.127.2")
	alias    = ip("192.168.127.254")
	guestMAC = net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	toAll    = netip.MustParseAddrPort("255.255.255.255:68")
	allMAC   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(n int) net.HardwareAddr {
	return net.HardwareAddr{2, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// defaults is the network of PROTOCOL.md.
func defaults() dhcpserver.Config {
	return dhcpserver.Config{
		Subnet:   netip.MustParsePrefix("192.168.127.0/24"),
		Gateway:  gateway,
		Static:   map[netip.Addr]net.HardwareAddr{guest: guestMAC},
		Reserved: []netip.Addr{alias},
		Search:   func() []string { return []string{"corp.example.com", "example.com."} },
	}
}

// network is a server and its clock.
type network struct {
	testing.TB
	*dhcpserver.Server
	now time.Time
}

func newNetwork(t testing.TB, change func(*dhcpserver.Config)) *network {
	n := &network{TB: t, now: time.Unix(1_800_000_000, 0)}
	cfg := defaults()
	cfg.Now = func() time.Time { return n.now }
	if change != nil {
		change(&cfg)
	}
	var err error
	n.Server, err = dhcpserver.New(cfg)
	require.NoError(t, err)
	return n
}

func small(cfg *dhcpserver.Config) { // three addresses to hand out: .3, .4, .5
	cfg.Subnet = netip.MustParsePrefix("192.168.127.0/29")
	cfg.Reserved = []netip.Addr{ip("192.168.127.6")}
	cfg.MaxPerPort = 8
}

type option = func(*dhcpv4.DHCPv4)

func message(kind dhcpv4.MessageType, from net.HardwareAddr, options ...option) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootRequest,
		HWType:        iana.HWTypeEthernet,
		TransactionID: dhcpv4.TransactionID{1, 2, 3, from[5]},
		ClientHWAddr:  from,
		Options:       dhcpv4.OptionsFromList(dhcpv4.OptMessageType(kind)),
	}
	for _, o := range options {
		o(m)
	}
	return m
}

func ciaddr(a netip.Addr) option { return dhcpv4.WithClientIP(a.AsSlice()) }
func wants(a netip.Addr) option {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice()))
}
func server(a netip.Addr) option {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(a.AsSlice()))
}
func hostname(h string) option { return dhcpv4.WithOption(dhcpv4.OptHostName(h)) }
func requests(codes ...dhcpv4.OptionCode) option {
	return dhcpv4.WithOption(dhcpv4.OptParameterRequestList(codes...))
}

// answer is a Reply, decoded.
type answer struct {
	dhcpserver.Reply
	*dhcpv4.DHCPv4
}

func (a *answer) yours() netip.Addr {
	y, _ := netip.AddrFromSlice(a.YourIPAddr.To4())
	return y
}

// send returns nil where there is no answer.
func (n *network) send(port uint64, m *dhcpv4.DHCPv4) *answer {
	n.Helper()
	reply, ok := n.Handle(port, m.ClientHWAddr, m.ToBytes())
	if !ok {
		return nil
	}
	decoded, err := dhcpv4.FromBytes(reply.Payload)
	require.NoError(n, err)
	require.Equal(n, dhcpv4.OpcodeBootReply, decoded.OpCode)
	require.Equal(n, m.TransactionID, decoded.TransactionID)
	require.Equal(n, m.ClientHWAddr, decoded.ClientHWAddr)
	require.Equal(n, reply.Nak, decoded.MessageType() == dhcpv4.MessageTypeNak)
	return &answer{reply, decoded}
}

// is requires an answer of that type.
func (n *network) is(kind dhcpv4.MessageType, a *answer) *answer {
	n.Helper()
	require.NotNil(n, a, "no answer")
	require.Equal(n, kind, a.MessageType())
	return a
}

func (n *network) discover(port uint64, from net.HardwareAddr, options ...option) *answer {
	n.Helper()
	return n.send(port, message(dhcpv4.MessageTypeDiscover, from, options...))
}

func (n *network) request(port uint64, from net.HardwareAddr, options ...option) *answer {
	n.Helper()
	return n.send(port, message(dhcpv4.MessageTypeRequest, from, options...))
}

// take goes the whole way to a lease and returns its address.
func (n *network) take(port uint64, from net.HardwareAddr, options ...option) netip.Addr {
	n.Helper()
	offer := n.is(dhcpv4.MessageTypeOffer, n.discover(port, from, options...))
	options = append(options, wants(offer.yours()), server(gateway))
	ack := n.is(dhcpv4.MessageTypeAck, n.request(port, from, options...))
	require.Equal(n, offer.yours(), ack.yours())
	require.NotNil(n, ack.Lease)
	require.Equal(n, ack.yours(), ack.Lease.Addr)
	return ack.yours()
}

func (n *network) release(port uint64, from net.HardwareAddr, a netip.Addr) {
	n.Helper()
	require.Nil(n, n.send(port, message(dhcpv4.MessageTypeRelease, from, ciaddr(a), server(gateway))))
}

func (n *network) decline(port uint64, from net.HardwareAddr, a netip.Addr) {
	n.Helper()
	require.Nil(n, n.send(port, message(dhcpv4.MessageTypeDecline, from, wants(a), server(gateway))))
}
