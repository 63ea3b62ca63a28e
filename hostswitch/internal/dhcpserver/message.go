// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package dhcpserver

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

const (
	clientPort = 68
	// Echoed up to here, so that a reply fits 576 bytes whatever the client
	// sent. RFC 4361 makes identifiers of 135 bytes at most.
	maxClientID = 192
)

// A request is what the server needs of a client's message, checked.
type request struct {
	msg      *dhcpv4.DHCPv4
	kind     dhcpv4.MessageType
	mac      hwAddr
	ciaddr   netip.Addr // zero: none
	wanted   netip.Addr // requested address (50), or in a REQUEST without one ciaddr; zero: none
	server   netip.Addr // zero: none
	hostname string
}

// parse returns false for what is no well-formed message of a client on this
// network: RFC 2131, table 5, says which fields each type has.
func parse(src net.HardwareAddr, payload []byte) (request, bool) {
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest || m.HWType != iana.HWTypeEthernet || !m.GatewayIPAddr.IsUnspecified() {
		return request{}, false
	}
	r := request{msg: m, kind: m.MessageType(), ciaddr: addrOf(m.ClientIPAddr), hostname: name(m.HostName())}
	var ok, wantedOK, serverOK bool
	r.mac, ok = client(m.ClientHWAddr)
	r.wanted, wantedOK = addrOption(m, dhcpv4.OptionRequestedIPAddress)
	r.server, serverOK = addrOption(m, dhcpv4.OptionServerIdentifier)
	if !ok || !wantedOK || !serverOK || !slices.Equal(m.ClientHWAddr, src) {
		return request{}, false
	}
	switch r.kind {
	case dhcpv4.MessageTypeDiscover:
		return r, !r.ciaddr.IsValid()
	case dhcpv4.MessageTypeRequest:
		// SELECTING and INIT-REBOOT ask by option, RENEWING and REBINDING
		// by ciaddr.
		if !r.wanted.IsValid() {
			r.wanted = r.ciaddr
		}
		return r, r.wanted.IsValid() && (!r.ciaddr.IsValid() || r.ciaddr == r.wanted)
	case dhcpv4.MessageTypeDecline:
		return r, r.wanted.IsValid()
	case dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeInform:
		return r, r.ciaddr.IsValid()
	default:
		return request{}, false
	}
}

// addrOf returns ip, or the zero Addr for none and 0.0.0.0.
func addrOf(ip []byte) netip.Addr {
	if a, ok := netip.AddrFromSlice(ip); ok && a.Is4() && !a.IsUnspecified() {
		return a
	}
	return netip.Addr{}
}

// addrOption returns false when the option is there and no address.
func addrOption(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode) (netip.Addr, bool) {
	v := m.Options.Get(code)
	return addrOf(v), !m.Options.Has(code) || len(v) == net.IPv4len
}

func (s *Server) reply(r request, kind dhcpv4.MessageType, lease *Lease) Reply {
	gateway := net.IP(s.cfg.Gateway.AsSlice())
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        r.msg.HWType,
		TransactionID: r.msg.TransactionID,
		Flags:         r.msg.Flags,
		ClientHWAddr:  r.msg.ClientHWAddr,
		Options: dhcpv4.OptionsFromList(
			dhcpv4.OptMessageType(kind),
			dhcpv4.OptServerIdentifier(gateway),
		),
	}
	if id := r.msg.Options.Get(dhcpv4.OptionClientIdentifier); len(id) > 0 && len(id) <= maxClientID {
		m.Options.Update(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, id)) // RFC 6842
	}
	out := Reply{DstMAC: r.msg.ClientHWAddr}
	if kind == dhcpv4.MessageTypeNak {
		m.Options.Update(dhcpv4.OptMessage(r.wanted.String() + " is not available on " + s.cfg.Subnet.String()))
		out.Nak = true
		out.Payload = m.ToBytes()
		out.toAll()
		return out
	}

	if kind == dhcpv4.MessageTypeAck {
		m.ClientIPAddr = r.msg.ClientIPAddr
		out.Lease = lease
	}
	var dst netip.Addr
	if lease != nil {
		dst = lease.Addr
		m.YourIPAddr = dst.AsSlice()
		m.Options.Update(dhcpv4.OptIPAddressLeaseTime(s.cfg.LeaseTime))
		m.Options.Update(dhcpv4.OptRenewTimeValue(s.cfg.LeaseTime / 2))
		m.Options.Update(dhcpv4.OptRebindingTimeValue(s.cfg.LeaseTime / 8 * 7))
	}
	s.configure(r, m)
	out.Payload = m.ToBytes()

	// RFC 2131, section 4.1.
	switch {
	case r.ciaddr.IsValid():
		out.Dst = netip.AddrPortFrom(r.ciaddr, clientPort)
	case r.msg.IsBroadcast():
		out.toAll()
	default:
		out.Dst = netip.AddrPortFrom(dst, clientPort)
	}
	return out
}

func (r *Reply) toAll() {
	r.DstMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	r.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
}

// configure adds what a guest needs to know about the network, whether it asks
// for it or not: the search list last, which has what room is left.
func (s *Server) configure(r request, m *dhcpv4.DHCPv4) {
	gateway := net.IP(s.cfg.Gateway.AsSlice())
	m.Options.Update(dhcpv4.OptSubnetMask(net.CIDRMask(s.cfg.Subnet.Bits(), 32)))
	m.Options.Update(dhcpv4.OptRouter(gateway))
	m.Options.Update(dhcpv4.OptDNS(gateway))
	m.Options.Update(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(s.cfg.MTU)})
	if r.msg.IsOptionRequested(dhcpv4.OptionBroadcastAddress) {
		m.Options.Update(dhcpv4.OptBroadcastAddress(s.broadcast.AsSlice()))
	}

	// RFC 2131, section 2: 576 bytes, unless the client takes more (57).
	size := 576
	if n, err := r.msg.MaxMessageSize(); err == nil {
		size = min(max(size, int(n)), s.cfg.MTU)
	}
	const udp, fixed, end = 28, 240, 1
	room := size - udp - fixed - end
	for _, v := range m.Options {
		room -= 2 + len(v)
	}

	var names []string
	for _, n := range s.cfg.Search() {
		if n = name(n); n != "" {
			names = append(names, n)
		}
	}
	if len(names) > 0 && 2+len(names[0]) <= room {
		m.Options.Update(dhcpv4.OptDomainName(names[0]))
		room -= 2 + len(names[0])
	}
	// One instance of the option: not every client joins several (RFC 3396).
	room = min(room-2, 255)
	labels := rfc1035label.NewLabels()
	for _, n := range names {
		if size := len(n) + 2; size <= room {
			labels.Labels = append(labels.Labels, n)
			room -= size
		}
	}
	if len(labels.Labels) > 0 {
		m.Options.Update(dhcpv4.OptDomainSearch(labels))
	}
}

// name returns n without the final dot, or "" if it is no host or domain name:
// at most 253 letters, digits, hyphens and underscores, in labels of 1 to 63.
// The encoder relies on it, which makes garbage of anything longer, and so may
// scripts in the guest, and readers of a list of leases.
func name(n string) string {
	n = strings.TrimSuffix(n, ".")
	if len(n) > 253 {
		return ""
	}
	for label := range strings.SplitSeq(n, ".") {
		if len(label) == 0 || len(label) > 63 || strings.ContainsFunc(label, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
		}) {
			return ""
		}
	}
	return n
}
