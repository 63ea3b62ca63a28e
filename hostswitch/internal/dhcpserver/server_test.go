// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package dhcpserver_test

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/dhcpserver"
)

func TestConfigErrorsNameTheField(t *testing.T) {
	tests := map[string]struct {
		field  string
		change func(*dhcpserver.Config)
	}{
		"no subnet":          {"Subnet", func(c *dhcpserver.Config) { c.Subnet = netip.Prefix{} }},
		"too small":          {"Subnet", func(c *dhcpserver.Config) { c.Subnet = netip.MustParsePrefix("192.168.127.0/30") }},
		"too large":          {"Subnet", func(c *dhcpserver.Config) { c.Subnet = netip.MustParsePrefix("0.0.0.0/7") }},
		"not masked":         {"Subnet", func(c *dhcpserver.Config) { c.Subnet = netip.MustParsePrefix("192.168.127.1/24") }},
		"IPv6":               {"Subnet", func(c *dhcpserver.Config) { c.Subnet = netip.MustParsePrefix("fd00::/24") }},
		"no gateway":         {"Gateway", func(c *dhcpserver.Config) { c.Gateway = netip.Addr{} }},
		"gateway outside":    {"Gateway", func(c *dhcpserver.Config) { c.Gateway = ip("10.0.0.1") }},
		"gateway network":    {"Gateway", func(c *dhcpserver.Config) { c.Gateway = ip("192.168.127.0") }},
		"gateway broadcast":  {"Gateway", func(c *dhcpserver.Config) { c.Gateway = ip("192.168.127.255") }},
		"MTU":                {"MTU", func(c *dhcpserver.Config) { c.MTU = 65536 }},
		"negative MTU":       {"MTU", func(c *dhcpserver.Config) { c.MTU = -1 }},
		"reserved":           {"Reserved", func(c *dhcpserver.Config) { c.Reserved = []netip.Addr{{}} }},
		"static outside":     {"Static", func(c *dhcpserver.Config) { c.Static[ip("10.0.0.1")] = mac(1) }},
		"static gateway":     {"Static", func(c *dhcpserver.Config) { c.Static[gateway] = mac(1) }},
		"static reserved":    {"Static", func(c *dhcpserver.Config) { c.Static[alias] = mac(1) }},
		"static short MAC":   {"Static", func(c *dhcpserver.Config) { c.Static[ip("192.168.127.9")] = mac(1)[:5] }},
		"static group MAC":   {"Static", func(c *dhcpserver.Config) { c.Static[ip("192.168.127.9")] = allMAC }},
		"two for one MAC":    {"Static", func(c *dhcpserver.Config) { c.Static[ip("192.168.127.9")] = guestMAC }},
		"lease time":         {"LeaseTime", func(c *dhcpserver.Config) { c.LeaseTime = -1 }},
		"lease time too big": {"LeaseTime", func(c *dhcpserver.Config) { c.LeaseTime = 150 * 365 * 24 * time.Hour }},
		"max per port":       {"MaxPerPort", func(c *dhcpserver.Config) { c.MaxPerPort = -1 }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := defaults()
			tt.change(&cfg)
			_, err := dhcpserver.New(cfg)
			require.ErrorContains(t, err, "dhcpserver: "+tt.field+": ")
		})
	}
}

func TestTheStaticGuestGetsItsAddressAndNobodyElseDoes(t *testing.T) {
	n := newNetwork(t, small)
	leases := n.Leases()
	require.Equal(t, []dhcpserver.Lease{{Addr: guest, MAC: guestMAC, Static: true}}, leases)

	require.Equal(t, ip("192.168.127.3"), n.take(1, mac(1), wants(guest)))
	n.is(dhcpv4.MessageTypeNak, n.request(1, mac(2), wants(guest)))
	n.is(dhcpv4.MessageTypeNak, n.request(1, mac(2), ciaddr(guest)))
	for i := 2; i <= 3; i++ {
		require.NotEqual(t, guest, n.take(1, mac(i)))
	}
	require.Nil(t, n.discover(1, mac(9), wants(guest)), "exhausted, and the owner was never there")

	require.Equal(t, guest, n.take(7, guestMAC, wants(ip("192.168.127.5")), hostname("lima-rd")))
	lease, ok := n.Lookup(guestMAC)
	require.True(t, ok)
	require.Equal(t, dhcpserver.Lease{Addr: guest, MAC: guestMAC, Hostname: "lima-rd", Static: true,
		Expires: n.now.Add(time.Hour), Port: 7}, lease)

	n.is(dhcpv4.MessageTypeNak, n.request(7, guestMAC, ciaddr(ip("192.168.127.3"))))
	n.decline(7, guestMAC, guest)
	require.Equal(t, guest, n.take(7, guestMAC), "a static address is not set aside")
	n.release(7, guestMAC, guest)
	lease, ok = n.Lookup(guestMAC)
	require.True(t, ok)
	require.True(t, lease.Expires.IsZero())
}

func TestDynamicAddressesAreTheLowestFreeOnes(t *testing.T) {
	n := newNetwork(t, nil)
	require.Equal(t, ip("192.168.127.3"), n.take(1, mac(1)))
	require.Equal(t, ip("192.168.127.4"), n.take(1, mac(2)))
	require.Equal(t, ip("192.168.127.77"), n.take(1, mac(3), wants(ip("192.168.127.77"))), "a free one that was asked for")
	require.Equal(t, ip("192.168.127.5"), n.take(1, mac(4), wants(ip("192.168.127.77"))), "a taken one")
	for i, taboo := range []string{"192.168.127.0", "192.168.127.1", "192.168.127.254", "192.168.127.255", "10.0.0.1", "0.0.0.0"} {
		require.Equal(t, 6+i, int(n.take(1, mac(10+i), wants(ip(taboo))).As4()[3]), taboo)
	}
	var addrs []netip.Addr
	for _, l := range n.Leases() {
		addrs = append(addrs, l.Addr)
	}
	require.IsIncreasing(t, asInts(addrs))
	require.Len(t, addrs, 11)
}

func asInts(addrs []netip.Addr) (ints []int) {
	for _, a := range addrs {
		ints = append(ints, int(a.As4()[3]))
	}
	return ints
}

func TestAnOfferIsHeldForAWhileAndIsNoLease(t *testing.T) {
	n := newNetwork(t, nil)
	first := n.is(dhcpv4.MessageTypeOffer, n.discover(1, mac(1)))
	require.Nil(t, first.Lease)
	require.Len(t, n.Leases(), 1)
	_, ok := n.Lookup(mac(1))
	require.False(t, ok)
	require.Equal(t, first.yours(), n.discover(1, mac(1)).yours())
	require.NotEqual(t, first.yours(), n.discover(1, mac(2)).yours())

	n.now = n.now.Add(31 * time.Second)
	require.Equal(t, first.yours(), n.discover(1, mac(3)).yours(), "nobody took it up")
	n.is(dhcpv4.MessageTypeNak, n.request(1, mac(1), wants(first.yours()), server(gateway)))
}

func TestAnotherServersOfferIsChosenAndOursForgotten(t *testing.T) {
	n := newNetwork(t, nil)
	offer := n.discover(1, mac(1)).yours()
	require.Nil(t, n.request(1, mac(1), wants(ip("192.168.127.99")), server(ip("192.168.127.88"))))
	require.Equal(t, offer, n.discover(1, mac(2)).yours())

	addr := n.take(1, mac(3))
	require.Nil(t, n.request(1, mac(3), wants(addr), server(ip("192.168.127.88"))))
	_, ok := n.Lookup(mac(3))
	require.True(t, ok, "a lease is no offer")
}

// RFC 2131, section 4.3.2, by state of the client. It asks for .3 or what is said;
// it has .3 where its lease says so, and another client has .4.
func TestRequest(t *testing.T) {
	own, others, free := ip("192.168.127.3"), ip("192.168.127.4"), ip("192.168.127.50")
	const silence = dhcpv4.MessageTypeNone
	tests := map[string]struct {
		known   bool
		options []option
		want    dhcpv4.MessageType
		dst     netip.AddrPort
	}{
		"selecting":                     {true, []option{wants(own), server(gateway)}, dhcpv4.MessageTypeAck, netip.AddrPortFrom(own, 68)},
		"selecting, broadcast":          {true, []option{wants(own), server(gateway), dhcpv4.WithBroadcast(true)}, dhcpv4.MessageTypeAck, toAll},
		"selecting what is not its own": {true, []option{wants(free), server(gateway)}, dhcpv4.MessageTypeNak, toAll},
		"selecting what is another's":   {false, []option{wants(others), server(gateway)}, dhcpv4.MessageTypeNak, toAll},
		"selecting nothing":             {true, []option{server(gateway)}, silence, toAll},
		"init-reboot":                   {true, []option{wants(own)}, dhcpv4.MessageTypeAck, netip.AddrPortFrom(own, 68)},
		"init-reboot, wrong address":    {true, []option{wants(free)}, dhcpv4.MessageTypeNak, toAll},
		"init-reboot, wrong network":    {false, []option{wants(ip("10.1.2.3"))}, dhcpv4.MessageTypeNak, toAll},
		"init-reboot, another's":        {false, []option{wants(others)}, dhcpv4.MessageTypeNak, toAll},
		"init-reboot, reserved":         {false, []option{wants(alias)}, dhcpv4.MessageTypeNak, toAll},
		"init-reboot, unknown and free": {false, []option{wants(free)}, dhcpv4.MessageTypeAck, netip.AddrPortFrom(free, 68)},
		"renewing":                      {true, []option{ciaddr(own)}, dhcpv4.MessageTypeAck, netip.AddrPortFrom(own, 68)},
		"renewing, unknown and free":    {false, []option{ciaddr(free)}, dhcpv4.MessageTypeAck, netip.AddrPortFrom(free, 68)},
		"renewing, another's":           {true, []option{ciaddr(others)}, dhcpv4.MessageTypeNak, toAll},
		"rebinding":                     {true, []option{ciaddr(own), dhcpv4.WithBroadcast(true)}, dhcpv4.MessageTypeAck, netip.AddrPortFrom(own, 68)},
		"rebinding, wrong network":      {false, []option{ciaddr(ip("10.1.2.3"))}, dhcpv4.MessageTypeNak, toAll},
		"contradiction":                 {true, []option{ciaddr(own), wants(free)}, silence, toAll},
		"nothing":                       {true, nil, silence, toAll},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, nil)
			require.Equal(t, own, n.take(1, mac(1)))
			require.Equal(t, others, n.take(2, mac(2)))
			if !tt.known {
				n.release(1, mac(1), own)
			}
			client := mac(1)
			if !tt.known {
				client = mac(3)
			}
			n.now = n.now.Add(time.Minute)
			a := n.request(1, client, tt.options...)
			if tt.want == silence {
				require.Nil(t, a)
				return
			}
			n.is(tt.want, a)
			require.Equal(t, tt.dst, a.Dst)
			require.Equal(t, tt.dst == toAll, a.DstMAC.String() == allMAC.String())
			require.True(t, a.ServerIdentifier().Equal(gateway.AsSlice()))
			if tt.want == dhcpv4.MessageTypeNak {
				require.Nil(t, a.Lease)
				require.True(t, a.YourIPAddr.IsUnspecified())
				require.True(t, a.ClientIPAddr.IsUnspecified())
				require.Zero(t, a.IPAddressLeaseTime(0))
				return
			}
			require.Equal(t, n.now.Add(time.Hour), a.Lease.Expires)
			require.Equal(t, client, a.Lease.MAC)
			lease, ok := n.Lookup(client)
			require.True(t, ok)
			require.Equal(t, *a.Lease, lease)
		})
	}
}

func TestInformIsAnsweredWithoutALease(t *testing.T) {
	n := newNetwork(t, nil)
	addr := ip("192.168.127.200")
	a := n.is(dhcpv4.MessageTypeAck, n.send(1, message(dhcpv4.MessageTypeInform, mac(1), ciaddr(addr))))
	require.Equal(t, netip.AddrPortFrom(addr, 68), a.Dst)
	require.Nil(t, a.Lease)
	require.True(t, a.YourIPAddr.IsUnspecified())
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue} {
		require.False(t, a.Options.Has(code), code)
	}
	require.Equal(t, "corp.example.com", a.DomainName())
	require.Len(t, n.Leases(), 1)
	require.Nil(t, n.send(1, message(dhcpv4.MessageTypeInform, mac(1), ciaddr(ip("8.8.8.8")))))
}

func TestDeclinedAddressesAreSetAsideForAWhile(t *testing.T) {
	n := newNetwork(t, func(c *dhcpserver.Config) { c.MaxPerPort = 3 })
	first := n.take(1, mac(1))
	n.decline(2, mac(1), first) // through another port: not its own
	n.decline(1, mac(2), first)
	n.decline(1, mac(1), ip("192.168.127.4"))
	_, ok := n.Lookup(mac(1))
	require.True(t, ok)

	n.decline(1, mac(1), first)
	_, ok = n.Lookup(mac(1))
	require.False(t, ok)
	second := n.take(1, mac(1))
	require.NotEqual(t, first, second)
	n.is(dhcpv4.MessageTypeNak, n.request(2, mac(2), wants(first)))

	n.decline(1, mac(1), second)
	n.decline(1, mac(1), n.take(1, mac(1)))
	require.Nil(t, n.discover(1, mac(1)), "it cannot use up the pool that way")
	require.NotNil(t, n.discover(2, mac(2)))

	n.now = n.now.Add(11 * time.Minute)
	require.Equal(t, first, n.take(1, mac(1)))
}

func TestTheSameClientGetsItsAddressAgain(t *testing.T) {
	id := dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{1, 2, 3}))
	steps := map[string]func(n *network, addr netip.Addr){
		"while it has it":     func(*network, netip.Addr) {},
		"after its release":   func(n *network, addr netip.Addr) { n.release(1, mac(2), addr) },
		"after its expiry":    func(n *network, _ netip.Addr) { n.now = n.now.Add(time.Hour) },
		"with others waiting": func(n *network, _ netip.Addr) { n.now = n.now.Add(2 * time.Hour); n.take(1, mac(5)) },
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, nil)
			n.take(1, mac(1))
			addr := n.take(1, mac(2))
			n.take(1, mac(3))
			step(n, addr)
			// Another port, and another client identifier: the same client.
			require.Equal(t, addr, n.take(99, mac(2), id))
			lease, ok := n.Lookup(mac(2))
			require.True(t, ok)
			require.EqualValues(t, 99, lease.Port)
		})
	}
}

func TestALeaseEndsByTheClock(t *testing.T) {
	n := newNetwork(t, func(c *dhcpserver.Config) { c.LeaseTime = 10 * time.Second })
	addr := n.take(1, mac(1))
	n.now = n.now.Add(9 * time.Second)
	n.is(dhcpv4.MessageTypeAck, n.request(1, mac(1), ciaddr(addr)))
	n.now = n.now.Add(9 * time.Second)
	require.Len(t, n.Leases(), 2)
	n.now = n.now.Add(time.Second)
	require.Len(t, n.Leases(), 1)
	_, ok := n.Lookup(mac(1))
	require.False(t, ok)
}

func TestReleaseCountsOnlyFromTheHolder(t *testing.T) {
	n := newNetwork(t, nil)
	addr := n.take(1, mac(1))
	n.release(2, mac(1), addr)
	n.release(1, mac(2), addr)
	n.release(1, mac(1), ip("192.168.127.9"))
	require.Nil(t, n.send(1, message(dhcpv4.MessageTypeRelease, mac(1), ciaddr(addr), server(ip("192.168.127.9")))))
	_, ok := n.Lookup(mac(1))
	require.True(t, ok)
	n.release(1, mac(1), addr)
	_, ok = n.Lookup(mac(1))
	require.False(t, ok)
}

func TestASmallPoolRunsOutAndRecovers(t *testing.T) {
	n := newNetwork(t, small)
	require.Equal(t, "192.168.127.3", n.take(1, mac(1)).String())
	n.now = n.now.Add(time.Minute)
	require.Equal(t, "192.168.127.4", n.take(1, mac(2)).String())
	require.Equal(t, "192.168.127.5", n.take(1, mac(3)).String())
	require.Nil(t, n.discover(1, mac(4)))
	n.is(dhcpv4.MessageTypeNak, n.request(1, mac(4), wants(ip("192.168.127.4"))))
	require.EqualValues(t, 1, n.Stats().Exhausted)

	n.now = n.now.Add(59 * time.Minute) // the first expires, nobody is evicted before
	require.Equal(t, "192.168.127.3", n.take(1, mac(4)).String())
	require.Nil(t, n.discover(1, mac(1)))
	n.now = n.now.Add(time.Minute)
	require.Equal(t, "192.168.127.5", n.take(1, mac(1), wants(ip("192.168.127.5"))).String())
	require.Equal(t, "192.168.127.4", n.take(1, mac(2)).String())

	n.now = n.now.Add(2 * time.Hour) // the one longest out of use goes first
	require.Equal(t, "192.168.127.3", n.take(1, mac(9)).String())
	require.Equal(t, "192.168.127.4", n.take(1, mac(2)).String())
}

func TestAFloodFromOnePortLeavesRoomForAnother(t *testing.T) {
	tests := map[string]struct {
		change func(*dhcpserver.Config)
		most   int
	}{
		"/24":      {nil, 64},
		"/29":      {func(c *dhcpserver.Config) { small(c); c.MaxPerPort = 0 }, 1},
		"explicit": {func(c *dhcpserver.Config) { c.MaxPerPort = 10 }, 10},
		"/8": {func(c *dhcpserver.Config) {
			c.Subnet, c.Gateway = netip.MustParsePrefix("10.0.0.0/8"), ip("10.0.0.1")
			c.Static, c.Reserved = nil, nil
		}, 64},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, tt.change)
			for round := range 3 { // offers, then leases, then offers again
				got := 0
				for i := range 2000 {
					if a := n.discover(1, mac(round<<16|i)); a != nil {
						got++
						if round == 1 {
							server := server(netip.AddrFrom4([4]byte(a.ServerIdentifier())))
							n.is(dhcpv4.MessageTypeAck, n.request(1, mac(round<<16|i), wants(a.yours()), server))
						}
					}
				}
				if round < 2 {
					require.Equal(t, tt.most, got)
					require.NotNil(t, n.discover(2, mac(1<<24|round)))
				} else {
					require.Zero(t, got, "the leases are still held")
				}
				n.now = n.now.Add(time.Minute)
			}
			require.NotZero(t, n.Stats().PortLimit)
			require.NotNil(t, n.discover(3, mac(3<<24)))
		})
	}
}

// However many ports there have been, the table is bounded, and a /8 costs no
// more than what is in it.
func TestManyPortsDoNotGrowTheTableForEver(t *testing.T) {
	n := newNetwork(t, func(c *dhcpserver.Config) {
		c.Subnet, c.Gateway = netip.MustParsePrefix("10.0.0.0/8"), ip("10.0.0.1")
		c.Static, c.Reserved = nil, nil
	})
	refused := false
	for i := 0; i < 10_000 && !refused; i++ {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		refused = n.request(uint64(i/64), mac(i), wants(a)).Nak
	}
	require.True(t, refused)
	require.EqualValues(t, 1, n.Stats().Exhausted)
	require.LessOrEqual(t, len(n.Leases()), 4096)

	n.now = n.now.Add(2 * time.Hour)
	require.NotNil(t, n.discover(1<<40, mac(1<<30)))
	require.Len(t, n.Leases(), 0)
}

func TestMethodsMayBeCalledConcurrently(t *testing.T) {
	s, err := dhcpserver.New(defaults())
	require.NoError(t, err)
	var wg sync.WaitGroup
	for port := range 4 {
		wg.Go(func() {
			for i := range 200 {
				from := mac(port<<8 | i%16)
				if r, ok := s.Handle(uint64(port), from, message(dhcpv4.MessageTypeDiscover, from).ToBytes()); ok {
					offer, _ := dhcpv4.FromBytes(r.Payload)
					addr := netip.AddrFrom4([4]byte(offer.YourIPAddr.To4()))
					s.Handle(uint64(port), from, message(dhcpv4.MessageTypeRequest, from, wants(addr)).ToBytes())
				}
				s.Leases()
				s.Lookup(from)
				s.Stats()
				s.Owner(guest, time.Now())
				s.Detach(9)
			}
		})
	}
	wg.Wait()
	seen := map[netip.Addr]net.HardwareAddr{}
	for _, l := range s.Leases() {
		require.Nil(t, seen[l.Addr])
		seen[l.Addr] = l.MAC
	}
	require.Len(t, seen, 65)
}
