// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// A PacketConn is a UDP socket of the stack. It implements [net.PacketConn], and
// [net.Conn] if it is connected.
type PacketConn struct {
	*socket
	local, remote net.Addr // remote is nil if it is not connected
}

// ListenUDP binds a UDP socket; port 0 is chosen by the stack.
func (s *Stack) ListenUDP(local netip.AddrPort) (*PacketConn, error) {
	return s.openUDP("listen", local, netip.AddrPort{})
}

// DialUDP binds a UDP socket that talks to remote only. A zero local is chosen
// by the stack.
func (s *Stack) DialUDP(local, remote netip.AddrPort) (*PacketConn, error) {
	return s.openUDP("dial", local, remote)
}

func (s *Stack) openUDP(op string, local, remote netip.AddrPort) (*PacketConn, error) {
	ep, wq, err := s.open(udp.ProtocolNumber, func(ep tcpip.Endpoint) tcpip.Error {
		ep.SocketOptions().SetBroadcast(true)
		if local.IsValid() {
			if err := ep.Bind(fullAddress(local)); err != nil {
				return err
			}
		}
		if !remote.IsValid() {
			return nil
		}
		return ep.Connect(fullAddress(remote))
	})
	if err != nil {
		e := &net.OpError{Op: op, Net: "udp", Addr: net.UDPAddrFromAddrPort(local), Err: err}
		if remote.IsValid() {
			e.Addr = net.UDPAddrFromAddrPort(remote)
		}
		return nil, e
	}
	c := &PacketConn{socket: newSocket(s, "udp", ep, wq)}
	c.local = c.socket.LocalAddr()
	if remote.IsValid() {
		c.remote = net.UDPAddrFromAddrPort(remote)
	}
	return c, nil
}

// LocalAddr implements [net.PacketConn].
func (c *PacketConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements [net.Conn].
func (c *PacketConn) RemoteAddr() net.Addr { return c.remote }

// Read implements [net.Conn].
func (c *PacketConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

// ReadFrom implements [net.PacketConn]. What does not fit b is lost.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.check(&c.readBy); err != nil {
		return 0, nil, c.opError("read", err)
	}
	for {
		w := tcpip.SliceWriter(b)
		res, err := c.ep.Read(&w, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch err.(type) {
		case nil:
			return res.Count, net.UDPAddrFromAddrPort(addrPort(res.RemoteAddr)), nil
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.readable, &c.readBy); err != nil {
				return 0, nil, c.opError("read", err)
			}
		case *tcpip.ErrClosedForReceive:
			return 0, nil, c.opError("read", net.ErrClosed)
		default:
			return 0, nil, c.opError("read", c.fault(err))
		}
	}
}

// Write implements [net.Conn].
func (c *PacketConn) Write(b []byte) (int, error) { return c.write(b, tcpip.WriteOptions{}) }

// WriteTo implements [net.PacketConn].
func (c *PacketConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	ua, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", fmt.Errorf("address is %T, want *net.UDPAddr", addr))
	}
	ap := ua.AddrPort()
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	if !ap.Addr().Is4() {
		return 0, c.opError("write", &net.AddrError{Err: "not an IPv4 address", Addr: addr.String()})
	}
	to := fullAddress(ap)
	to.NIC = 0
	return c.write(b, tcpip.WriteOptions{To: &to})
}

func (c *PacketConn) write(b []byte, opts tcpip.WriteOptions) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.check(&c.writeBy); err != nil {
		return 0, c.opError("write", err)
	}
	var r bytes.Reader
	for {
		r.Reset(b)
		n, err := c.ep.Write(&r, opts)
		switch err.(type) {
		case nil:
			return int(n), nil
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.writable, &c.writeBy); err != nil {
				return 0, c.opError("write", err)
			}
		default:
			return 0, c.opError("write", c.fault(err))
		}
	}
}

func (c *PacketConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.network, Source: c.local, Addr: c.remote, Err: err}
}
