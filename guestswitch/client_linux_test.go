// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

var (
	testMAC    = packet.MAC{2, 0, 0, 0, 0, 1}
	testServer = packet.MAC{2, 0, 0, 0, 0, 9}
	serverIP   = netip.MustParseAddr("10.0.0.1")
	clientIP   = netip.MustParseAddr("10.0.0.2")
)

// asked is a message that the client sent.
type asked struct {
	at   time.Duration // since the test began
	kind dhcpv4.MessageType
	to   netip.Addr
	mac  packet.MAC
}

// clock runs the client inside a bubble of synctest, where an hour takes no
// time, against a server that answers as the test says.
type clock struct {
	t       *testing.T
	began   time.Time
	mu      sync.Mutex
	answer  func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4
	asked   []asked
	events  []Event
	times   []time.Duration // of events
	actions []string
	conn    *dhcpConn
	end     func() *grant
}

func startClock(t *testing.T, answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4) *clock {
	k := &clock{t: t, began: time.Now(), answer: answer}
	k.conn = newDHCPConn(testMAC, k.send)
	nc, err := nclient4.NewWithConn(k.conn, testMAC[:], nclient4.WithTimeout(firstTimeout), nclient4.WithRetry(tries))
	require.NoError(t, err)
	c := &client{
		nc: nc,
		act: func(_ context.Context, name string, _ *grant) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.actions = append(k.actions, name)
			return nil
		},
		mtu: func(Lease) error { return nil },
		notify: func(e Event) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.events, k.times = append(k.events, e), append(k.times, time.Since(k.began))
		},
		warn: func(string, error) {},
	}
	ctx, cancel := context.WithCancel(t.Context())
	last := make(chan *grant, 1)
	go func() { last <- c.run(ctx) }()
	k.end = func() *grant {
		cancel()
		g := <-last
		require.NoError(t, nc.Close())
		return g
	}
	return k
}

func (k *clock) send(f []byte) error {
	eth, _ := packet.ParseEthernet(f)
	ip, _ := packet.ParseIPv4(eth.Payload)
	udp, ok := packet.ParseUDP(ip)
	require.True(k.t, ok)
	m, err := dhcpv4.FromBytes(udp.Payload)
	require.NoError(k.t, err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, asked{time.Since(k.began), m.MessageType(), ip.Dst, eth.Dst})
	if r := k.answer(m); r != nil {
		eth, _ := packet.ParseEthernet(packet.AppendUDP(nil, packet.Link{Src: testServer, Dst: testMAC},
			netip.AddrPortFrom(serverIP, serverPort), netip.AddrPortFrom(clientIP, clientPort), r.ToBytes()))
		require.True(k.t, k.conn.take(eth))
	}
	return nil
}

// change replaces what is answered.
func (k *clock) change(answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answer = answer
}

// forget forgets what was asked.
func (k *clock) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = nil
}

// after waits until that much has passed since the beginning.
func (k *clock) after(d time.Duration) {
	k.change(k.answer) // the lock orders what the test read before what is written from now on
	<-time.After(d - time.Since(k.began))
	synctest.Wait()
}

func (k *clock) kinds() (kinds []EventKind) {
	for _, e := range k.events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func granting(d time.Duration, mods ...dhcpv4.Modifier) func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	return func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		kind := dhcpv4.MessageTypeAck
		if m.MessageType() == dhcpv4.MessageTypeDiscover {
			kind = dhcpv4.MessageTypeOffer
		}
		r, err := dhcpv4.NewReplyFromRequest(m, append([]dhcpv4.Modifier{
			dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(clientIP.AsSlice()),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(serverIP.AsSlice())),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(uint32(d / time.Second)),
		}, mods...)...)
		if err != nil {
			panic(err)
		}
		return r
	}
}

func nobody(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return nil }

func TestClientAsksForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := startClock(t, nobody)
		k.after(24 * time.Hour)
		require.Equal(t, []string{"deconfig", "leasefail", "leasefail"}, k.actions[:3])
		// Four questions, then up to half a minute of rest: it goes on, at a bounded rate.
		require.Greater(t, len(k.asked), 4*24*3600/(15+30))
		require.Less(t, len(k.asked), 5*24*3600/(15+15))
		require.Equal(t, []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second},
			[]time.Duration{k.asked[0].at, k.asked[1].at, k.asked[2].at, k.asked[3].at})
		for _, e := range k.events {
			require.Equal(t, Failed, e.Kind)
			require.ErrorIs(t, e.Err, nclient4.ErrNoResponse)
		}
		k.change(granting(time.Hour))
		k.after(24*time.Hour + time.Minute)
		require.Equal(t, []EventKind{Leased, Configured}, k.kinds()[len(k.events)-2:])
		require.Equal(t, clientIP, k.end().lease.Addr.Addr())
	})
}

func TestClientRenewsThenRebindsThenGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := startClock(t, granting(8*time.Hour))
		k.after(time.Hour)
		require.Equal(t, []EventKind{Leased, Configured}, k.kinds())
		k.change(nobody)
		k.forget()
		k.after(8*time.Hour - time.Second)

		rebind := slices.IndexFunc(k.asked, func(a asked) bool { return a.to != serverIP })
		require.Equal(t, asked{4 * time.Hour, dhcpv4.MessageTypeRequest, serverIP, testServer}, k.asked[0])
		require.Equal(t, asked{7 * time.Hour, dhcpv4.MessageTypeRequest, netip.MustParseAddr("255.255.255.255"), packet.Broadcast}, k.asked[rebind])
		require.Equal(t, 4*time.Hour+90*time.Minute, k.asked[4].at) // half of what is left until T2
		require.Len(t, k.events, 2)

		k.after(8 * time.Hour)
		require.Equal(t, []EventKind{Leased, Configured, LeaseLost}, k.kinds())
		require.ErrorIs(t, k.events[2].Err, errExpired)
		require.Equal(t, []string{"deconfig", "bound", "deconfig"}, k.actions)
		k.end()
	})
}

func TestClientIsServedByAnotherServerAfterT2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := startClock(t, granting(8*time.Hour))
		k.after(time.Hour)
		other := granting(10*time.Hour, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 0, 0, 3})))
		k.change(func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			if time.Since(k.began) < 7*time.Hour {
				return nil
			}
			return other(m)
		})
		k.after(7 * time.Hour)
		require.Equal(t, []EventKind{Leased, Configured, Renewed}, k.kinds())
		require.Equal(t, netip.MustParseAddr("10.0.0.3"), k.events[2].Lease.Server)
		k.change(other)
		k.forget()
		k.after(12 * time.Hour) // and is asked at the new T1
		require.Equal(t, 12*time.Hour, k.asked[0].at)
		require.Equal(t, netip.MustParseAddr("10.0.0.3"), k.asked[0].to)
		k.end()
	})
}

func TestClientKeepsAnInfiniteLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := startClock(t, granting((1<<32-1)*time.Second))
		k.after(10 * 365 * 24 * time.Hour)
		require.Len(t, k.asked, 2)
		require.Zero(t, k.end().lease.Duration)
	})
}

// An answer that cannot be used is no answer; a server that gives leases of no
// length is not asked all the time.
func TestClientAndAServerGoneWrong(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4
		last   EventKind
	}{
		"no address":        {granting(time.Hour, dhcpv4.WithYourIP(net.IPv4zero)), Failed},
		"multicast address": {granting(time.Hour, dhcpv4.WithYourIP(net.IP{224, 0, 0, 1})), Failed},
		"holes in the mask": {granting(time.Hour, dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0})), Failed},
		"always NAK":        {granting(time.Hour, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak)), Failed},
		"lease of no time":  {granting(0), Renewed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := startClock(t, c.answer)
				k.after(time.Hour)
				require.Equal(t, c.last, k.events[len(k.events)-1].Kind)
				require.Less(t, len(k.asked), 3*3600)
				k.end()
			})
		})
	}
}

func TestTimesOfALease(t *testing.T) {
	at := time.Now()
	hours := func(code uint8, n byte) dhcpv4.Modifier {
		s := uint32(n) * 3600
		return dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), []byte{byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s)}))
	}
	for name, c := range map[string]struct {
		mods   []dhcpv4.Modifier
		t1, t2 time.Duration
	}{
		"none given":      {nil, 4 * time.Hour, 7 * time.Hour},
		"both given":      {[]dhcpv4.Modifier{hours(58, 2), hours(59, 5)}, 2 * time.Hour, 5 * time.Hour},
		"T1 after T2":     {[]dhcpv4.Modifier{hours(58, 6), hours(59, 5)}, 4 * time.Hour, 5 * time.Hour},
		"T2 after end":    {[]dhcpv4.Modifier{hours(58, 2), hours(59, 9)}, 2 * time.Hour, 7 * time.Hour},
		"T2 before half":  {[]dhcpv4.Modifier{hours(59, 1)}, time.Hour, time.Hour},
		"both after end":  {[]dhcpv4.Modifier{hours(58, 20), hours(59, 30)}, 4 * time.Hour, 7 * time.Hour},
		"T1 of no length": {[]dhcpv4.Modifier{hours(58, 0)}, 4 * time.Hour, 7 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := dhcpv4.New()
			require.NoError(t, err)
			g, err := newGrant(granting(8*time.Hour, c.mods...)(m), nil, at)
			require.NoError(t, err)
			require.Equal(t, []time.Duration{c.t1, c.t2, 8 * time.Hour}, []time.Duration{g.t1.Sub(at), g.t2.Sub(at), g.end.Sub(at)})
		})
	}
}

// Whatever a server sends, what comes of it is sound, and fit for a shell.
func FuzzGrant(f *testing.F) {
	m, err := dhcpv4.NewDiscovery(testMAC[:])
	if err != nil {
		f.Fatal(err)
	}
	first := granting(time.Hour)(m)
	f.Add(first.ToBytes())
	f.Add(granting(time.Hour, dhcpv4.WithDomainSearchList("a.b", "c.b"), dhcpv4.WithRouter(net.IP{10, 0, 0, 1}),
		dhcpv4.WithOption(dhcpv4.OptDomainName("lan\nnameserver 1.1.1.1")), dhcpv4.WithDNS(net.IP{10, 0, 0, 1}),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{5, 220}))(m).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		ack, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		for _, v := range scriptEnv(ack) {
			name, value, ok := strings.Cut(v, "=")
			if !ok || name == "" || value == "" || strings.ContainsAny(v, "\x00\n\r") {
				t.Fatalf("environment: %q", v)
			}
		}
		g, err := newGrant(ack, &grant{ack: first}, time.Now())
		if err != nil {
			return
		}
		l := g.lease
		if !l.Addr.IsValid() || !l.Addr.Addr().Is4() || l.MTU != 0 && (l.MTU < minMTU || l.MTU > maxMTU) ||
			g.t1.After(g.t2) || g.t2.After(g.end) || l.Duration < 0 {
			t.Fatalf("%+v", g)
		}
		for _, name := range append(l.Search, l.Domain) {
			if strings.ContainsAny(name, " \n\x00#;") {
				t.Fatalf("name %q", name)
			}
		}
	})
}

// Only an answer to this very client is kept from the tap.
func FuzzTake(f *testing.F) {
	m, err := dhcpv4.NewDiscovery(testMAC[:])
	if err != nil {
		f.Fatal(err)
	}
	answer := granting(time.Hour)(m).ToBytes()
	f.Add(packet.AppendUDP(nil, packet.Link{Src: testServer, Dst: testMAC}, netip.AddrPortFrom(serverIP, 67), netip.AddrPortFrom(clientIP, 68), answer))
	f.Add(packet.AppendUDP(nil, packet.Link{Src: testServer, Dst: testMAC}, netip.AddrPortFrom(serverIP, 53), netip.AddrPortFrom(clientIP, 4242), answer))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		eth, ok := packet.ParseEthernet(b)
		if !ok {
			return
		}
		c := newDHCPConn(testMAC, nil)
		if !c.take(eth) {
			return
		}
		buf := make([]byte, nclient4.MaxMessageSize)
		n, _, err := c.ReadFrom(buf)
		if err != nil || n < bootpLen || packet.MAC(buf[28:34]) != testMAC || eth.Dst != testMAC && eth.Dst != packet.Broadcast {
			t.Fatalf("%x", b)
		}
	})
}
