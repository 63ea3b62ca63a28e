// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// DialContext connects this process to a guest, or to another address of the
// virtual network: network is "tcp" or "udp" (or tcp4, udp4), address an IPv4
// address and a port. The guest sees the gateway's address. A connection has
// CloseWrite and CloseRead, as a [net.TCPConn] has; it ends with the Switch.
func (s *Switch) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	proto, err := protocol(network)
	if err != nil {
		return nil, s.dialError("dial", network, address, err)
	}
	to, err := s.inside(address)
	if err != nil {
		return nil, s.dialError("dial", network, address, err)
	}
	from := netip.AddrPortFrom(s.net.Subnet.Gateway, 0)
	if proto == "udp" {
		c, err := s.stack.DialUDP(from, to)
		if err != nil {
			return nil, s.dialError("dial", network, address, err)
		}
		return c, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer onDone(s.ctx, cancel)()
	c, err := s.stack.DialTCP(ctx, from, to)
	if err != nil {
		return nil, s.dialError("dial", network, address, err)
	}
	return c, nil
}

// Listen announces on an address of the gateway inside the virtual network:
// network is "tcp" (or tcp4); an address without a host is the gateway's own,
// and port 0 is chosen by the Switch. The listener ends with the Switch.
func (s *Switch) Listen(network, address string) (net.Listener, error) {
	at, err := s.here("tcp", network, address)
	if err != nil {
		return nil, s.dialError("listen", network, address, err)
	}
	ln, err := s.stack.ListenTCP(at)
	if err != nil {
		return nil, s.dialError("listen", network, address, err)
	}
	return ln, nil
}

// ListenPacket is Listen for "udp" (or udp4).
func (s *Switch) ListenPacket(network, address string) (net.PacketConn, error) {
	at, err := s.here("udp", network, address)
	if err != nil {
		return nil, s.dialError("listen", network, address, err)
	}
	pc, err := s.stack.ListenUDP(at)
	if err != nil {
		return nil, s.dialError("listen", network, address, err)
	}
	// What has gone out from the guests to this address comes here from now on.
	at = pc.LocalAddr().(*net.UDPAddr).AddrPort() //nolint:forcetypeassert // a UDP socket's
	s.flows.closeWhere(func(k flowKey) bool { return k.proto == packet.ProtoUDP && !k.forward && k.dst == at })
	return pc, nil
}

// dialError says which call failed, unless err does; on a closed Switch, that it is closed.
func (s *Switch) dialError(op, network, address string, err error) error {
	if s.ctx.Err() != nil {
		err = ErrClosed
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("hostswitch: %w", err)
	}
	return fmt.Errorf("hostswitch: %s %s %s: %w", op, network, address, err)
}

// protocol is the lower-case name of a transport protocol of IPv4.
func protocol(network string) (string, error) {
	switch p := strings.ToLower(network); p {
	case "tcp", "tcp4":
		return "tcp", nil
	case "udp", "udp4":
		return "udp", nil
	default:
		return "", fmt.Errorf(`unknown protocol %q; write "tcp" or "udp"`, network)
	}
}

// inside parses the address of somebody on the virtual network.
func (s *Switch) inside(address string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(address)
	switch {
	case err != nil:
		return ap, fmt.Errorf("%q is not an IPv4 address and a port, as in %s", address, netip.AddrPortFrom(s.net.Subnet.Guest, 80))
	case !s.net.Subnet.Prefix.Contains(ap.Addr()):
		return ap, fmt.Errorf("%s is not in the virtual network %s", ap.Addr(), s.net.Subnet.Prefix)
	case ap.Port() == 0:
		return ap, fmt.Errorf("%q has no port", address)
	}
	return ap, nil
}

// here parses an address of the gateway.
func (s *Switch) here(want, network, address string) (netip.AddrPort, error) {
	if p, err := protocol(network); err != nil {
		return netip.AddrPort{}, err
	} else if p != want {
		return netip.AddrPort{}, fmt.Errorf("write %q", want)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q is not a number up to 65535", port)
	}
	a := s.net.Subnet.Gateway
	if host != "" {
		if a, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is not an IPv4 address", host)
		}
	}
	if want == "udp" && n == bootpServer {
		return netip.AddrPort{}, fmt.Errorf("port %d is the DHCP server's", n)
	}
	if !s.own(a) {
		return netip.AddrPort{}, fmt.Errorf("%s is not an address of the gateway; it has %s", a, s.net.Subnet.Gateway)
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}
