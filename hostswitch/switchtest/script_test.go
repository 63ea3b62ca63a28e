// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package switchtest_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A script is a peer that does what no Switch would.
type script struct {
	conn   net.Conn
	frames *frame.Reader
}

func newScript(t *testing.T, cfg switchtest.Config) (*switchtest.Guest, script) {
	inside, outside := net.Pipe()
	g, err := switchtest.NewGuest(inside, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = g.Close(); _ = outside.Close() })
	return g, script{outside, frame.NewReader(outside)}
}

// request returns the guest's next DHCP message, nil when there is none.
func (s script) request() *dhcpv4.DHCPv4 {
	for {
		f, err := s.frames.Next()
		if err != nil {
			return nil
		}
		eth, _ := packet.ParseEthernet(f)
		ip, _ := packet.ParseIPv4(eth.Payload)
		if udp, ok := packet.ParseUDP(ip); ok && udp.DstPort == 67 {
			if m, err := dhcpv4.FromBytes(udp.Payload); err == nil {
				return m
			}
		}
	}
}

func (s script) reply(to *dhcpv4.DHCPv4, kind dhcpv4.MessageType, change ...dhcpv4.Modifier) {
	m, err := dhcpv4.NewReplyFromRequest(to, append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 1, 2, 3)), dhcpv4.WithNetmask(net.CIDRMask(8, 32)),
		dhcpv4.WithServerIP(net.IPv4(10, 0, 0, 1)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))),
	}, change...)...)
	if err != nil {
		return
	}
	s.send(packet.AppendUDP(nil, packet.Link{Src: packet.MAC{2, 9}, Dst: packet.Broadcast},
		netip.MustParseAddrPort("10.0.0.1:67"), netip.MustParseAddrPort("255.255.255.255:68"), m.ToBytes()))
}

func (s script) send(f []byte) {
	_, _ = s.conn.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(len(f))), f...))
}

// echoed takes what the guest sends up to its answer to an echo request of that
// ID, and returns false if none comes.
func (s script) echoed(id uint16) bool {
	for {
		f, err := s.frames.Next()
		if err != nil {
			return false
		}
		eth, _ := packet.ParseEthernet(f)
		ip, _ := packet.ParseIPv4(eth.Payload)
		if e, ok := packet.ParseEcho(ip); ok && e.Reply && e.ID == id {
			return true
		}
	}
}

func TestDHCPOutlastsSilenceAndNonsense(t *testing.T) {
	g, s := newScript(t, switchtest.Config{Hostname: "outlasts"})
	var peer sync.WaitGroup
	peer.Go(func() {
		_ = s.request() // unanswered
		m := s.request()
		if m.HostName() != "outlasts" {
			t.Errorf("host name %q", m.HostName())
		}
		s.send([]byte("short"))
		s.send(packet.AppendUDP(nil, packet.Link{Dst: packet.Broadcast}, netip.MustParseAddrPort("10.0.0.1:67"), netip.MustParseAddrPort("255.255.255.255:68"), []byte("no DHCP")))
		s.reply(m, dhcpv4.MessageTypeOffer, dhcpv4.WithTransactionID(dhcpv4.TransactionID{1}))
		s.reply(m, dhcpv4.MessageTypeOffer, dhcpv4.WithHwAddr(net.HardwareAddr{2, 2, 2, 2, 2, 2}))
		s.reply(m, dhcpv4.MessageTypeAck) // to what was not asked
		s.reply(m, dhcpv4.MessageTypeOffer)
		m = s.request()
		if !m.RequestedIPAddress().Equal(net.IPv4(10, 1, 2, 3)) || !m.ServerIdentifier().Equal(net.IPv4(10, 0, 0, 1)) {
			t.Errorf("the offer is not what is requested: %s", m.Summary())
		}
		s.reply(m, dhcpv4.MessageTypeAck)
	})
	l, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	peer.Wait()
	require.Equal(t, switchtest.Lease{Addr: netip.MustParsePrefix("10.1.2.3/8"), Server: netip.MustParseAddr("10.0.0.1")}, l)
}

func TestALeaseThatIsRefusedIsGivenUp(t *testing.T) {
	g, s := newScript(t, switchtest.Config{})
	var peer sync.WaitGroup
	defer peer.Wait()
	peer.Go(func() {
		s.reply(s.request(), dhcpv4.MessageTypeOffer)
		s.reply(s.request(), dhcpv4.MessageTypeAck)
		m := s.request()
		if m.MessageType() != dhcpv4.MessageTypeRequest || !m.ClientIPAddr.Equal(net.IPv4(10, 1, 2, 3)) {
			t.Errorf("not a renewal: %s", m.Summary())
		}
		s.reply(m, dhcpv4.MessageTypeNak, dhcpv4.WithOption(dhcpv4.OptMessage("gone")))
		if m := s.request(); m.MessageType() != dhcpv4.MessageTypeDiscover {
			t.Errorf("not from the beginning: %s", m.Summary())
		}
	})
	_, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	_, err = g.DHCP(withTimeout(t))
	require.ErrorIs(t, err, switchtest.ErrRefused)
	require.ErrorContains(t, err, "gone")
	require.False(t, g.Addr().IsValid())
	ctx, cancel := context.WithCancel(t.Context())
	go func() { peer.Wait(); cancel() }()
	_, err = g.DHCP(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestLeasesThatCannotBeUsed(t *testing.T) {
	for name, change := range map[string]dhcpv4.Modifier{
		"no address": dhcpv4.WithYourIP(net.IPv4zero),
		"no mask":    dhcpv4.WithoutOption(dhcpv4.OptionSubnetMask),
		"MTU":        dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0, 67}),
	} {
		t.Run(name, func(t *testing.T) {
			g, s := newScript(t, switchtest.Config{})
			var peer sync.WaitGroup
			peer.Go(func() {
				s.reply(s.request(), dhcpv4.MessageTypeOffer)
				s.reply(s.request(), dhcpv4.MessageTypeAck, change)
			})
			_, err := g.DHCP(withTimeout(t))
			require.ErrorContains(t, err, "switchtest: DHCP: the lease")
			require.False(t, g.Addr().IsValid())
			peer.Wait()
		})
	}
}

func TestCloseEndsDHCP(t *testing.T) {
	g, s := newScript(t, switchtest.Config{})
	ended := make(chan error, 1)
	go func() { _, err := g.DHCP(context.WithoutCancel(t.Context())); ended <- err }()
	require.NotNil(t, s.request())
	require.NoError(t, g.Close())
	require.ErrorIs(t, <-ended, switchtest.ErrClosed)
}

func TestErrTellsHowThePeerEnded(t *testing.T) {
	g, s := newScript(t, switchtest.Config{})
	require.NoError(t, g.Err(), "while it lasts")
	require.NoError(t, s.conn.Close())
	<-g.Done()
	require.NoError(t, g.Err(), "between two frames")
	requireEnded(t, g)

	g, s = newScript(t, switchtest.Config{})
	_, err := s.conn.Write([]byte{60, 0, 1, 2, 3})
	require.NoError(t, err)
	require.NoError(t, s.conn.Close())
	<-g.Done()
	require.ErrorIs(t, g.Err(), io.ErrUnexpectedEOF, "inside one")
}

// A peer that takes no frames costs what the queue holds, and Close ends it.
func TestAPeerThatTakesNoFrames(t *testing.T) {
	g, _ := newScript(t, switchtest.Config{})
	var err error
	for range 10_000 {
		if err = g.SendFrame(make([]byte, 1500)); err != nil {
			break
		}
	}
	require.ErrorContains(t, err, "the queue is full")
	require.NotErrorIs(t, err, switchtest.ErrClosed)
	require.NoError(t, g.Close())
}

// Frames of any content, at any place, leave the guest alive.
func FuzzGuest(f *testing.F) {
	link := packet.Link{Src: packet.MAC{2, 9}, Dst: packet.MAC(switchtest.DefaultMAC())}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(gateway, port) }
	m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithHwAddr(switchtest.DefaultMAC()))
	require.NoError(f, err)
	for _, frame := range [][]byte{
		nil, []byte("short"), make([]byte, 1600),
		packet.AppendUDP(nil, link, at(67), at(68), m.ToBytes()),
		packet.AppendEcho(nil, link, gateway, gateway, packet.Echo{Reply: true}),
		packet.AppendARP(nil, link, packet.ARP{Op: 2, Sender: gateway, Target: gateway}),
	} {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 1<<16-1 {
			return
		}
		g, s := newScript(t, switchtest.Config{})
		require.NoError(t, g.Static(netip.MustParsePrefix("192.168.127.2/24"), gateway))
		alive := make(chan bool, 1)
		go func() { alive <- s.echoed(7) }()
		s.send(frame)
		s.send(packet.AppendARP(nil, link, packet.ARP{Op: 1, SenderMAC: link.Src, Sender: gateway, Target: g.Addr()}))
		s.send(packet.AppendEcho(nil, link, gateway, g.Addr(), packet.Echo{ID: 7}))
		select {
		case ok := <-alive:
			require.True(t, ok)
		case <-time.After(patience):
			t.Fatal("the guest does not answer any more")
		}
	})
}
