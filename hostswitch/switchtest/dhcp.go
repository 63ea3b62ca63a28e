// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package switchtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

const (
	bootpServer = 67
	bootpClient = 68

	minMTU = 68             // RFC 791
	maxMTU = 1<<16 - 1 - 14 // what the length in front of a frame can say

	// again is when a request is repeated that nobody answers.
	again = time.Second
)

// A Lease is what the guest has been told about its network.
type Lease struct {
	Addr    netip.Prefix // the guest's address, and the length of the link's prefix
	Gateway netip.Addr   // zero: none
	DNS     []netip.Addr
	Domain  string
	Search  []string
	MTU     int           // 0: not told
	Server  netip.Addr    // zero if the guest was configured with Static
	Time    time.Duration // how long it is valid, from when DHCP returned
}

// Lease returns the lease as it is now, the zero Lease if there is none.
func (g *Guest) Lease() Lease {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lease
	l.DNS, l.Search = slices.Clone(l.DNS), slices.Clone(l.Search)
	return l
}

// DHCP gets a lease (RFC 2131: discover, request) and configures the guest's
// address, route, MTU and name servers as it says; a guest that has one already
// asks for it again. Requests are repeated until ctx ends. The error Is
// [ErrRefused] if the server said no: a lease that it refuses to extend is given
// up.
func (g *Guest) DHCP(ctx context.Context) (Lease, error) {
	g.leasing.Lock()
	defer g.leasing.Unlock()
	old := g.Lease()
	var ack *dhcpv4.DHCPv4
	var err error
	if old.Server.IsValid() {
		ack, err = g.exchange(ctx, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeAck, old.Addr.Addr())
	} else {
		var offer *dhcpv4.DHCPv4
		if offer, err = g.exchange(ctx, dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeOffer, netip.Addr{}); err == nil {
			ack, err = g.exchange(ctx, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeAck, netip.Addr{},
				dhcpv4.OptRequestedIPAddress(offer.YourIPAddr), dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
		}
	}
	if errors.Is(err, ErrRefused) && old.Server.IsValid() {
		err = errors.Join(err, g.configure(Lease{}))
	}
	if err != nil {
		return Lease{}, fmt.Errorf("switchtest: DHCP: %w", err)
	}
	l, err := leaseOf(ack)
	if err == nil {
		err = g.configure(l)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("switchtest: DHCP: %w", g.fault(err))
	}
	return g.Lease(), nil
}

// Static gives the guest an address without asking anybody; a zero gateway
// means that it reaches its own link only. There is no name server then.
func (g *Guest) Static(addr netip.Prefix, gateway netip.Addr) error {
	g.leasing.Lock()
	defer g.leasing.Unlock()
	if !addr.Addr().Is4() || gateway.IsValid() && !gateway.Is4() {
		return fmt.Errorf("switchtest: static address: %s and gateway %s are not both IPv4", addr, gateway)
	}
	if err := g.configure(Lease{Addr: addr, Gateway: gateway}); err != nil {
		return fmt.Errorf("switchtest: static address: %w", g.fault(err))
	}
	return nil
}

// configure replaces the lease, under g.leasing.
func (g *Guest) configure(l Lease) error {
	if g.ended() {
		return ErrClosed
	}
	old := g.Lease().Addr
	if old != l.Addr {
		g.setLease(Lease{})
		if old.IsValid() {
			if err := g.stack.RemoveAddress(old.Addr()); err != nil {
				return err
			}
		}
		if l.Addr.IsValid() {
			if err := g.stack.AddAddress(l.Addr); err != nil {
				return err
			}
		}
	}
	if l.MTU != 0 {
		g.stack.SetMTU(l.MTU)
	}
	if l.Addr.IsValid() {
		if err := g.stack.SetRoutes(l.Addr.Masked(), l.Gateway); err != nil {
			return err
		}
	}
	g.setLease(l)
	return nil
}

func (g *Guest) setLease(l Lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lease = l
}

// exchange broadcasts a message until its answer comes.
func (g *Guest) exchange(ctx context.Context, kind, want dhcpv4.MessageType, held netip.Addr, opts ...dhcpv4.Option) (*dhcpv4.DHCPv4, error) {
	m, err := dhcpv4.New(dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(g.cfg.MAC),
		dhcpv4.WithRequestedOptions(
			dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName,
			dhcpv4.OptionInterfaceMTU, dhcpv4.OptionDNSDomainSearchList))
	if err != nil {
		return nil, err
	}
	m.HWType = iana.HWTypeEthernet
	for _, o := range opts {
		m.UpdateOption(o)
	}
	if g.cfg.Hostname != "" {
		m.UpdateOption(dhcpv4.OptHostName(g.cfg.Hostname))
	}
	src := netip.IPv4Unspecified()
	if held.IsValid() {
		src, m.ClientIPAddr = held, held.AsSlice()
	}
	f := packet.AppendUDP(nil, packet.Link{Src: g.mac, Dst: packet.Broadcast},
		netip.AddrPortFrom(src, bootpClient), netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), bootpServer), m.ToBytes())

	replies := make(chan *dhcpv4.DHCPv4, 4)
	g.expect(replies)
	defer g.expect(nil)
	repeat := time.NewTicker(again)
	defer repeat.Stop()
	for {
		g.send(frame.Header{}, f)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("nobody answers the %s: %w", kind, ctx.Err())
			case <-g.closing:
				return nil, ErrClosed
			case <-g.done:
				return nil, ErrClosed
			case <-repeat.C:
				waiting = false
			case r := <-replies:
				if r.TransactionID != m.TransactionID {
					continue // of an earlier exchange
				}
				switch r.MessageType() {
				case want:
					return r, nil
				case dhcpv4.MessageTypeNak:
					return nil, fmt.Errorf("%w: %s", ErrRefused, r.Message())
				}
			}
		}
	}
}

func (g *Guest) expect(replies chan<- *dhcpv4.DHCPv4) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.replies = replies
}

func (g *Guest) takeDHCP(payload []byte) {
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || !bytes.Equal(m.ClientHWAddr, g.cfg.MAC) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case g.replies <- m: // nil blocks: nobody waits
	default:
	}
}

// leaseOf reads what the guest's stack needs to be sound; the rest is taken as
// the server says.
func leaseOf(m *dhcpv4.DHCPv4) (Lease, error) {
	addr, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
	ones, bits := m.SubnetMask().Size()
	if !ok || addr.IsUnspecified() || bits != 32 || ones == 0 {
		return Lease{}, fmt.Errorf("the lease of address %s and mask %s is none", m.YourIPAddr, m.SubnetMask())
	}
	l := Lease{
		Addr:   netip.PrefixFrom(addr, ones),
		Domain: m.DomainName(),
		Time:   m.IPAddressLeaseTime(0),
		DNS:    addrsOf(m.DNS()),
	}
	l.Server, _ = netip.AddrFromSlice(m.ServerIdentifier().To4())
	if routers := addrsOf(m.Router()); len(routers) > 0 {
		l.Gateway = routers[0]
	}
	if s := m.DomainSearch(); s != nil {
		l.Search = s.Labels
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil {
		if l.MTU = int(mtu); l.MTU < minMTU || l.MTU > maxMTU {
			return Lease{}, fmt.Errorf("the lease's MTU is %d, not between %d and %d", mtu, minMTU, maxMTU)
		}
	}
	return l, nil
}

func addrsOf(ips []net.IP) []netip.Addr {
	var addrs []netip.Addr
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
