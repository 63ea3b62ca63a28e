// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package dhcpserver_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/dhcpserver"
)

// PROTOCOL.md, the virtual network's table.
func TestTheReplyTellsAllAboutTheNetwork(t *testing.T) {
	n := newNetwork(t, nil)
	for _, a := range []*answer{
		n.discover(1, guestMAC, requests(dhcpv4.OptionSubnetMask)), // sent unasked: the rest
		n.request(1, guestMAC, wants(guest), server(gateway), requests(dhcpv4.OptionSubnetMask)),
	} {
		require.Equal(t, guest, a.yours())
		require.Equal(t, guestMAC, a.DstMAC)
		require.Equal(t, netip.AddrPortFrom(guest, 68), a.Dst)
		require.Equal(t, net.IP{192, 168, 127, 1}, a.ServerIdentifier())
		require.Equal(t, net.IPMask{255, 255, 255, 0}, a.SubnetMask())
		require.Equal(t, []net.IP{{192, 168, 127, 1}}, a.Router())
		require.Equal(t, []net.IP{{192, 168, 127, 1}}, a.DNS())
		require.Equal(t, []byte{1500 >> 8, 1500 & 0xff}, a.Options.Get(dhcpv4.OptionInterfaceMTU))
		require.Equal(t, "corp.example.com", a.DomainName())
		require.Equal(t, []string{"corp.example.com", "example.com"}, a.DomainSearch().Labels)
		require.Equal(t, time.Hour, a.IPAddressLeaseTime(0))
		require.Equal(t, 30*time.Minute, a.IPAddressRenewalTime(0))
		require.Equal(t, 52*time.Minute+30*time.Second, a.IPAddressRebindingTime(0))
		require.False(t, a.Options.Has(dhcpv4.OptionBroadcastAddress))
		require.LessOrEqual(t, len(a.Payload), 548)
	}
	a := n.discover(1, guestMAC, requests(dhcpv4.OptionBroadcastAddress), dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{1, 2})))
	require.Equal(t, net.IP{192, 168, 127, 255}, a.BroadcastAddress())
	require.Equal(t, []byte{1, 2}, a.Options.Get(dhcpv4.OptionClientIdentifier))
}

func TestSearchList(t *testing.T) {
	long := strings.Repeat("a", 63)
	longest := strings.Join([]string{long, long, long, strings.Repeat("b", 61)}, ".")
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("zone-%03d.example.com", i))
	}
	tests := map[string]struct {
		search  []string
		size    uint16 // option 57
		domain  string
		list    []string
		options []option
	}{
		"none":             {},
		"empty":            {search: []string{}},
		"one":              {search: []string{"a.example."}, domain: "a.example", list: []string{"a.example"}},
		"label too long":   {search: []string{long + "a.example", long + ".example"}, domain: long + ".example", list: []string{long + ".example"}},
		"label of 256":     {search: []string{strings.Repeat("a", 256), strings.Repeat("a", 192)}},
		"name too long":    {search: []string{longest + ".c", "ok.example"}, domain: "ok.example", list: []string{"ok.example"}},
		"empty labels":     {search: []string{"", ".", "a..b", ".a", "b.."}},
		"not names":        {search: []string{"$(reboot)", "a b", "a\n", "\x00", "ä.example", "_ok-1.example"}, domain: "_ok-1.example", list: []string{"_ok-1.example"}},
		"as many as fit":   {search: many, domain: many[0], list: many[:10]},
		"more room":        {search: many, size: 1500, domain: many[0], list: many[:11]}, // one instance: 255 bytes
		"size too small":   {search: many, size: 1, domain: many[0], list: many[:10]},
		"longest":          {search: []string{longest}, size: 1500, domain: longest, list: []string{longest}},
		"longest, no room": {search: []string{longest, "ok.example"}, list: []string{"ok.example"}},
		"a long identifier": {search: many, domain: many[0], list: many[:1],
			options: []option{dhcpv4.WithOption(dhcpv4.OptClientIdentifier(make([]byte, 192)))}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, func(c *dhcpserver.Config) { c.Search = func() []string { return tt.search } })
			if tt.size > 0 {
				tt.options = append(tt.options, dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(tt.size)))
			}
			a := n.discover(1, mac(1), tt.options...)
			require.Equal(t, tt.domain, a.DomainName())
			require.Equal(t, tt.domain != "", a.Options.Has(dhcpv4.OptionDomainName))
			require.Equal(t, tt.list != nil, a.Options.Has(dhcpv4.OptionDNSDomainSearchList))
			if tt.list != nil {
				require.Equal(t, tt.list, a.DomainSearch().Labels)
			}
			require.LessOrEqual(t, len(a.Payload), max(576, int(tt.size))-28)
		})
	}
}

func TestAReplyFitsTheSmallestMTU(t *testing.T) {
	n := newNetwork(t, func(c *dhcpserver.Config) { c.MTU = 576 })
	for size := range 260 {
		a := n.discover(1, mac(1), dhcpv4.WithOption(dhcpv4.OptClientIdentifier(make([]byte, size))),
			dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1500)))
		require.LessOrEqual(t, len(a.Payload), 576-28)
	}
}

func TestSearchAndHostnameFollowTheMoment(t *testing.T) {
	search := []string{"one.example"}
	n := newNetwork(t, func(c *dhcpserver.Config) { c.Search = func() []string { return search } })
	require.Equal(t, "one.example", n.discover(1, mac(1)).DomainName())
	search = nil
	require.Empty(t, n.discover(1, mac(1)).DomainName())

	for _, tt := range []struct{ sent, want string }{
		{"", ""}, {"good-name.local.", "good-name.local"}, {"<script>", "good-name.local"},
		{strings.Repeat("x", 64), "good-name.local"}, {"other", "other"},
	} {
		n.take(1, mac(1), hostname(tt.sent))
		lease, ok := n.Lookup(mac(1))
		require.True(t, ok)
		require.Equal(t, tt.want, lease.Hostname)
	}
}

func TestMalformedMessagesAreIgnored(t *testing.T) {
	good := func() *dhcpv4.DHCPv4 { return message(dhcpv4.MessageTypeDiscover, mac(1)) }
	set := func(code uint8, v ...byte) func(*dhcpv4.DHCPv4) {
		return func(m *dhcpv4.DHCPv4) { m.Options[code] = v }
	}
	tests := map[string]func(*dhcpv4.DHCPv4){
		"a reply":                  func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply },
		"not Ethernet":             func(m *dhcpv4.DHCPv4) { m.HWType = iana.HWTypeInfiniband },
		"relayed":                  func(m *dhcpv4.DHCPv4) { m.GatewayIPAddr = net.IP{10, 0, 0, 1} },
		"group address":            func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = allMAC },
		"zero address":             func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = make(net.HardwareAddr, 6) },
		"short address":            func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = mac(1)[:5] },
		"long address":             func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = make(net.HardwareAddr, 16) },
		"no address":               func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = nil },
		"BOOTP":                    func(m *dhcpv4.DHCPv4) { clear(m.Options) },
		"unknown type":             set(53, 99),
		"server's type":            set(53, byte(dhcpv4.MessageTypeOffer)),
		"long type":                set(53, 1, 1),
		"short requested address":  set(50, 192, 168, 127),
		"empty requested address":  set(50),
		"long server identifier":   set(54, 192, 168, 127, 1, 1),
		"DISCOVER with an address": func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = net.IP{8, 8, 8, 8} },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, nil)
			require.NotNil(t, n.send(1, good()))
			m := good()
			spoil(m)
			require.Nil(t, n.send(1, m))
			require.EqualValues(t, 1, n.Stats().Malformed)
			require.Len(t, n.Leases(), 1)
		})
	}
	t.Run("another's hardware address", func(t *testing.T) {
		n := newNetwork(t, nil)
		_, ok := n.Handle(1, mac(2), good().ToBytes())
		require.False(t, ok)
	})
	t.Run("truncated", func(t *testing.T) {
		n := newNetwork(t, nil)
		m := good()
		hostname("x")(m)
		whole := m.ToBytes()
		end := len(strings.TrimRight(string(whole), "\x00"))
		for size := range end {
			_, ok := n.Handle(1, mac(1), whole[:size])
			require.False(t, ok, size)
		}
		_, ok := n.Handle(1, mac(1), whole[:end])
		require.True(t, ok)
	})
}
