// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package switchtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// Dial is [Guest.DialContext] without a context.
func (g *Guest) Dial(network, address string) (net.Conn, error) {
	return g.DialContext(context.Background(), network, address)
}

// DialContext connects from the guest. The network is "tcp", "tcp4", "udp" or
// "udp4"; a host name is looked up through the guest's name server. Connections
// have CloseWrite and CloseRead if they are TCP. Errors are a [*net.OpError], and
// Is the error that a kernel's socket would return ([syscall.ECONNREFUSED]…), or
// [*net.DNSError]; [ErrNoAddress] and [ErrClosed] say that the guest is not able to.
func (g *Guest) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	tcp, err := protocol(network)
	if err != nil {
		return nil, err
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("switchtest: dial: %w", err)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, fmt.Errorf("switchtest: dial: %w", err)
	}
	addrs, err := g.addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	if !g.Addr().IsValid() {
		return nil, fmt.Errorf("switchtest: dial: %w", g.orEnded(ErrNoAddress))
	}
	var errs []error
	for _, a := range addrs {
		to := netip.AddrPortFrom(a, uint16(port))
		if !tcp {
			c, err := g.stack.DialUDP(netip.AddrPort{}, to)
			if err == nil {
				return c, nil
			}
			errs = append(errs, g.fault(err))
			continue
		}
		c, err := g.stack.DialTCP(ctx, netip.AddrPort{}, to)
		if err == nil {
			return c, nil
		}
		errs = append(errs, g.fault(err))
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

// Listen listens in the guest, for "tcp" or "tcp4". An empty host is every
// address of the guest, port 0 is chosen.
func (g *Guest) Listen(network, address string) (net.Listener, error) {
	at, err := g.local(true, network, address)
	if err != nil {
		return nil, err
	}
	ln, err := g.stack.ListenTCP(at)
	if err != nil {
		return nil, g.fault(err)
	}
	return ln, nil
}

// ListenPacket is Listen for "udp" and "udp4".
func (g *Guest) ListenPacket(network, address string) (net.PacketConn, error) {
	at, err := g.local(false, network, address)
	if err != nil {
		return nil, err
	}
	pc, err := g.stack.ListenUDP(at)
	if err != nil {
		return nil, g.fault(err)
	}
	return pc, nil
}

// HTTPClient returns a client whose requests come from the guest. It speaks
// HTTP/1.1 and opens a connection for each.
func (g *Guest) HTTPClient() *http.Client { return g.client }

// protocol reports whether network is TCP.
func protocol(network string) (tcp bool, err error) {
	switch network {
	case "tcp", "tcp4":
		return true, nil
	case "udp", "udp4":
		return false, nil
	default:
		return false, fmt.Errorf("switchtest: %w", net.UnknownNetworkError(network))
	}
}

func (g *Guest) local(wantTCP bool, network, address string) (netip.AddrPort, error) {
	tcp, err := protocol(network)
	if err == nil && tcp != wantTCP {
		err = fmt.Errorf("switchtest: listen: %w", net.UnknownNetworkError(network))
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("switchtest: listen: %w", err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	at, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("switchtest: listen: %w", err)
	}
	if !at.Addr().Is4() {
		return netip.AddrPort{}, fmt.Errorf("switchtest: listen: %s is not IPv4", at)
	}
	return at, nil
}

func (g *Guest) orEnded(err error) error {
	if g.ended() {
		return ErrClosed
	}
	return err
}
