// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
	"github.com/rancher-sandbox/guestnet/subnet"
)

func TestConfigErrorsNameTheField(t *testing.T) {
	type (
		leases = map[netip.Addr]net.HardwareAddr
		nat    = map[netip.Addr]netip.Addr
	)
	mac, other := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	loopback, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fd00::1")
	sub := func(cidr string, hosts ...byte) subnet.Subnet {
		p := netip.MustParsePrefix(cidr)
		at := func(n byte) netip.Addr {
			b := p.Addr().AsSlice()
			b[len(b)-1] = n
			a, _ := netip.AddrFromSlice(b)
			return a
		}
		return subnet.Subnet{Prefix: p, Gateway: at(hosts[0]), Guest: at(hosts[1]), HostAlias: at(hosts[2])}
	}
	for name, tc := range map[string]struct {
		cfg   hostswitch.Config
		field string
	}{
		"subnet without addresses":     {hostswitch.Config{Subnet: subnet.Subnet{Prefix: network}}, "Config.Subnet: Gateway (missing) is not"},
		"subnet without prefix":        {hostswitch.Config{Subnet: subnet.Subnet{Gateway: gateway}}, "Config.Subnet: Prefix (missing) is not"},
		"gateway outside":              {hostswitch.Config{Subnet: subnet.Subnet{Prefix: network, Gateway: world, Guest: guestAddr(2), HostAlias: hostAlias}}, "Config.Subnet: "},
		"host alias outside":           {hostswitch.Config{Subnet: subnet.Subnet{Prefix: network, Gateway: gateway, Guest: guestAddr(2), HostAlias: world}}, "Config.Subnet: HostAlias 198.51.100.7 is not"},
		"subnet too small":             {hostswitch.Config{Subnet: sub("192.168.127.0/30", 1, 2, 3)}, "Config.Subnet: "},
		"subnet too large":             {hostswitch.Config{Subnet: sub("10.0.0.0/7", 1, 2, 3)}, "Config.Subnet: "},
		"subnet not canonical":         {hostswitch.Config{Subnet: sub("192.168.127.9/24", 1, 2, 254)}, "Config.Subnet: "},
		"subnet of IPv6":               {hostswitch.Config{Subnet: sub("fd00::/64", 1, 2, 254)}, "Config.Subnet: "},
		"gateway is the network":       {hostswitch.Config{Subnet: sub("192.168.127.0/24", 0, 2, 254)}, "Config.Subnet: "},
		"gateway is the broadcast":     {hostswitch.Config{Subnet: sub("192.168.127.0/24", 255, 2, 254)}, "Config.Subnet: "},
		"gateway is the host alias":    {hostswitch.Config{Subnet: sub("192.168.127.0/24", 1, 2, 1)}, "Config.Subnet: "},
		"gateway is the guest":         {hostswitch.Config{Subnet: sub("192.168.127.0/24", 1, 1, 254)}, "Config.Subnet: "},
		"MTU negative":                 {hostswitch.Config{MTU: -1}, "Config.MTU: "},
		"MTU below IPv4's":             {hostswitch.Config{MTU: 575}, "Config.MTU: "},
		"MTU beyond the format":        {hostswitch.Config{MTU: 65522}, "Config.MTU: "},
		"gateway MAC short":            {hostswitch.Config{GatewayMAC: mac[:5]}, "Config.GatewayMAC: "},
		"gateway MAC empty":            {hostswitch.Config{GatewayMAC: net.HardwareAddr{}}, "Config.GatewayMAC: "},
		"gateway MAC multicast":        {hostswitch.Config{GatewayMAC: net.HardwareAddr{1, 0, 0, 0, 0, 1}}, "Config.GatewayMAC: "},
		"gateway MAC zero":             {hostswitch.Config{GatewayMAC: make(net.HardwareAddr, 6)}, "Config.GatewayMAC: "},
		"lease MAC short":              {hostswitch.Config{Leases: leases{guestAddr(5): mac[:3]}}, "Config.Leases: 192.168.127.5: "},
		"lease MAC multicast":          {hostswitch.Config{Leases: leases{guestAddr(5): {1, 0, 0, 0, 0, 1}}}, "Config.Leases: 192.168.127.5: "},
		"lease to the gateway's MAC":   {hostswitch.Config{Leases: leases{guestAddr(5): gatewayMAC[:]}}, "Config.Leases: "},
		"lease outside":                {hostswitch.Config{Leases: leases{world: mac}}, "Config.Leases: "},
		"lease of IPv6":                {hostswitch.Config{Leases: leases{v6: mac}}, "Config.Leases: "},
		"lease of the gateway":         {hostswitch.Config{Leases: leases{gateway: mac}}, "Config.Leases: "},
		"lease of the host alias":      {hostswitch.Config{Leases: leases{hostAlias: mac}}, "Config.Leases: "},
		"lease of the broadcast":       {hostswitch.Config{Leases: leases{guestAddr(255): mac}}, "Config.Leases: "},
		"two leases for one MAC":       {hostswitch.Config{Leases: leases{guestAddr(5): mac, guestAddr(6): mac, guestAddr(7): other}}, "Config.Leases: "},
		"NAT from IPv6":                {hostswitch.Config{NAT: nat{v6: loopback}}, "Config.NAT: "},
		"NAT to IPv6":                  {hostswitch.Config{NAT: nat{world: netip.IPv6Loopback()}}, "Config.NAT: "},
		"NAT from nowhere":             {hostswitch.Config{NAT: nat{{}: loopback}}, "Config.NAT: (missing) to 127.0.0.1"},
		"NAT from what guests never":   {hostswitch.Config{NAT: nat{netip.MustParseAddr("169.254.169.254"): loopback}}, "Config.NAT: "},
		"NAT of the gateway":           {hostswitch.Config{NAT: nat{gateway: loopback}}, "Config.NAT: "},
		"NAT of the network":           {hostswitch.Config{NAT: nat{guestAddr(0): loopback}}, "Config.NAT: "},
		"NAT of the broadcast":         {hostswitch.Config{NAT: nat{guestAddr(255): loopback}}, "Config.NAT: "},
		"zone without address":         {hostswitch.Config{Zones: []hostswitch.Zone{{Name: "a.internal", Records: []hostswitch.Record{{Name: "x"}}}}}, `Config.Zones[0]: zone "a.internal": Records[0].IP: it is missing`},
		"zone of IPv6":                 {hostswitch.Config{Zones: []hostswitch.Zone{{Name: "a.internal", DefaultIP: v6}}}, `Config.Zones[0]: zone "a.internal": DefaultIP: `},
		"zone without name":            {hostswitch.Config{Zones: []hostswitch.Zone{{Name: "."}, {DefaultIP: gateway}}}, "Config.Zones[1]: Name: it is missing"},
		"lease of no address":          {hostswitch.Config{Leases: leases{{}: mac}}, "Config.Leases: (missing) is not"},
		"zone that is no name":         {hostswitch.Config{Zones: []hostswitch.Zone{{Name: "a..internal"}}}, `Config.Zones[0]: zone "a..internal": Name: `},
		"search domain that is none":   {hostswitch.Config{SearchDomains: []string{"example.com", "no name"}}, "Config.SearchDomains"},
		"forward without local":        {hostswitch.Config{Forwards: []hostswitch.Forward{{Remote: ":80"}}}, "Config.Forwards[0]: "},
		"forward of another protocol":  {hostswitch.Config{Forwards: []hostswitch.Forward{{Protocol: "unix", Local: "/x", Remote: ":80"}}}, "Config.Forwards[0]: "},
		"forward to somebody else":     {hostswitch.Config{Forwards: []hostswitch.Forward{{Local: "127.0.0.1:0", Remote: world.String() + ":80"}}}, "Config.Forwards[0]: "},
		"second forward without ports": {hostswitch.Config{Forwards: []hostswitch.Forward{{Local: "127.0.0.1:0", Remote: ":80"}, {Local: "127.0.0.1", Remote: ":80"}}}, "Config.Forwards[1]: "},
	} {
		t.Run(name, func(t *testing.T) {
			sw, err := hostswitch.New(tc.cfg)
			if sw != nil {
				_ = sw.Close()
			}
			require.ErrorContains(t, err, "hostswitch: "+tc.field)
			require.NotContains(t, err.Error(), ": hostswitch: ", "it says once whose error it is")
			require.Nil(t, sw)
		})
	}
}

// FAILURES 7, 14: whatever it fails at, New leaves nothing.
func TestNewThatFailsLeavesNothing(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close() //nolint:errcheck // the end of the test
	free := freePort(t)
	good := hostswitch.Forward{Local: free, Remote: ":80"}
	for name, tc := range map[string]struct {
		cfg  hostswitch.Config
		want error
	}{
		"zone":           {cfg: hostswitch.Config{Zones: []hostswitch.Zone{{Name: "a..b"}}}},
		"lease":          {cfg: hostswitch.Config{Leases: map[netip.Addr]net.HardwareAddr{guestAddr(255): guestMAC[:]}}},
		"forward":        {hostswitch.Config{Forwards: []hostswitch.Forward{{Local: "nonsense"}}}, hostswitch.ErrForwardInvalid},
		"second of 3":    {hostswitch.Config{Forwards: []hostswitch.Forward{good, {Protocol: "sctp", Local: "127.0.0.1:0", Remote: ":1"}, good}}, hostswitch.ErrForwardInvalid},
		"third is first": {hostswitch.Config{Forwards: []hostswitch.Forward{good, {Protocol: "udp", Local: free, Remote: ":80"}, good}}, hostswitch.ErrForwardExists},
		"port taken":     {hostswitch.Config{Forwards: []hostswitch.Forward{good, {Local: taken.Addr().String(), Remote: ":80"}}}, hostswitch.ErrForwardExists},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := hostswitch.New(tc.cfg)
			require.Error(t, err)
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
			}
			goleak.VerifyNone(t, goleak.IgnoreCurrent())
			ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", free)
			require.NoError(t, err, "the port of the good forward")
			require.NoError(t, ln.Close())
		})
	}
}

// freePort returns a loopback address that nobody listens on just now.
func freePort(t testing.TB) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}

// PROTOCOL, "Virtual network (defaults)", byte for byte.
func TestDefaults(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{SearchDomains: []string{"corp.example", "example"}})
	g := attachRaw(t, sw, 2)
	ack := g.lease(t)

	require.Equal(t, net.IP{192, 168, 127, 2}, ack.YourIPAddr.To4())
	for _, opt := range []struct {
		name string
		code dhcpv4.OptionCode
		want []byte
	}{
		{"subnet mask", dhcpv4.OptionSubnetMask, []byte{255, 255, 255, 0}},
		{"router", dhcpv4.OptionRouter, []byte{192, 168, 127, 1}},
		{"DNS", dhcpv4.OptionDomainNameServer, []byte{192, 168, 127, 1}},
		{"server", dhcpv4.OptionServerIdentifier, []byte{192, 168, 127, 1}},
		{"MTU", dhcpv4.OptionInterfaceMTU, []byte{1500 >> 8, 1500 & 0xff}},
		{"domain name", dhcpv4.OptionDomainName, []byte("corp.example")},
		{"search list", dhcpv4.OptionDNSDomainSearchList, []byte("\x04corp\x07example\x00\x07example\x00")},
	} {
		require.Equal(t, opt.want, ack.Options.Get(opt.code), opt.name)
	}
	require.Equal(t, gatewayMAC, g.resolve(t, gateway))
	require.Equal(t, gatewayMAC, g.resolve(t, hostAlias), "the host alias is answered by the gateway's MAC")
	for _, zone := range []string{"rancher-desktop.internal.", "docker.internal."} {
		require.Equal(t, "192.168.127.1", g.lookup(t, "gateway."+zone))
		require.Equal(t, "192.168.127.254", g.lookup(t, "host."+zone))
	}
}

// lookup asks the gateway's DNS for an A record, with raw frames.
func (g *guest) lookup(t testing.TB, name string) string {
	t.Helper()
	answer := g.ask(t, new(dns.Msg).SetQuestion(name, dns.TypeA))
	require.Len(t, answer.Answer, 1, answer)
	return answer.Answer[0].(*dns.A).A.String()
}

func (g *guest) ask(t testing.TB, q *dns.Msg) *dns.Msg {
	t.Helper()
	wire, err := q.Pack()
	require.NoError(t, err)
	answers := g.watch(isProto(packet.ProtoUDP))
	defer g.unwatch(answers)
	g.send(g.whoHas(gateway)) // so that the gateway knows us
	g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 4242), netip.AddrPortFrom(gateway, 53), wire))
	for {
		u, ok := packet.ParseUDP(ipv4Of(t, await(t, answers, "DNS answer")))
		a := new(dns.Msg)
		if ok && u.SrcPort == 53 && a.Unpack(u.Payload) == nil && a.Id == q.Id {
			return a
		}
	}
}

// FAILURES 32: every length derives inside itself, and works.
func TestEverySubnetLength(t *testing.T) {
	for bits := 8; bits <= 29; bits++ {
		t.Run(fmt.Sprintf("/%d", bits), func(t *testing.T) {
			s, err := subnet.ValidateSubnet(fmt.Sprintf("10.0.0.0/%d", bits))
			require.NoError(t, err)
			sw := newSwitch(t, hostswitch.Config{Subnet: s})
			g := attachRaw(t, sw, 2)
			ack := g.lease(t)
			require.Equal(t, s.Guest.AsSlice(), []byte(ack.YourIPAddr.To4()))
			require.Equal(t, []byte(net.CIDRMask(bits, 32)), ack.Options.Get(dhcpv4.OptionSubnetMask))
			require.Equal(t, s.Gateway.AsSlice(), ack.Options.Get(dhcpv4.OptionRouter))
			g.addr = s.Guest
			require.Equal(t, gatewayMAC, g.resolve(t, s.Gateway))
			require.Equal(t, gatewayMAC, g.resolve(t, s.HostAlias))

			stranger := attachRaw(t, sw, 9)
			got := stranger.lease(t).YourIPAddr.To4()
			require.True(t, s.Prefix.Contains(netip.AddrFrom4([4]byte(got))))
			require.NotContains(t, []netip.Addr{s.Gateway, s.Guest, s.HostAlias}, netip.AddrFrom4([4]byte(got)))
		})
	}
}

// A nil map or slice is the default, an empty one is none.
func TestEmptyIsNone(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{
		Leases:        map[netip.Addr]net.HardwareAddr{},
		NAT:           map[netip.Addr]netip.Addr{},
		Zones:         []hostswitch.Zone{},
		SearchDomains: []string{},
		Resolver:      resolverFunc(refuseAll),
	})
	require.Empty(t, sw.Snapshot().Leases, "no reserved address")
	g := attachRaw(t, sw, 2)
	ack := g.lease(t)
	require.False(t, ack.Options.Has(dhcpv4.OptionDomainName))
	require.False(t, ack.Options.Has(dhcpv4.OptionDNSDomainSearchList))
	require.Equal(t, dns.RcodeRefused, g.ask(t, new(dns.Msg).SetQuestion("host.docker.internal.", dns.TypeA)).Rcode, "from the resolver")

	// ARP for what was the host alias stays unanswered: the marker of another
	// guest comes first.
	other, seen := attachRaw(t, sw, 3), g.watch(func(e packet.Ethernet) bool { return isARP(e) || isMarker(e) })
	g.send(g.whoHas(hostAlias))
	require.Equal(t, gatewayMAC, g.resolve(t, gateway))
	other.send(other.marker("end"))
	for {
		e, _ := packet.ParseEthernet(await(t, seen, "marker"))
		if isMarker(e) {
			break
		}
		a, _ := packet.ParseARP(e.Payload)
		require.NotEqual(t, hostAlias, a.Sender)
	}
}

// What Config holds is read once: a caller may use its maps again.
func TestConfigIsReadOnce(t *testing.T) {
	nat := map[netip.Addr]netip.Addr{hostAlias: netip.MustParseAddr("127.0.0.1")}
	leases := map[netip.Addr]net.HardwareAddr{guestAddr(2): slices.Clone(guestMAC[:])}
	mac := slices.Clone(net.HardwareAddr(gatewayMAC[:]))
	sw := newSwitch(t, hostswitch.Config{NAT: nat, Leases: leases, GatewayMAC: mac})
	clear(nat)
	leases[guestAddr(2)][5] = 1
	clear(leases)
	mac[5] = 1
	g := attachRaw(t, sw, 2)
	require.Equal(t, guestAddr(2).AsSlice(), []byte(g.lease(t).YourIPAddr.To4()))
	require.Equal(t, gatewayMAC, g.resolve(t, hostAlias))
	server := hostTCP(t, echo)
	sw2 := attach(t, sw, 3)
	require.Equal(t, "x", exchange(t, sw2.dial(t, server), "x"))
}
