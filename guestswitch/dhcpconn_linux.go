// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

const (
	serverPort = 67
	clientPort = 68
	// bootpLen is the fixed part of a message (RFC 951, RFC 2131).
	bootpLen = 236
)

// dhcpConn is the socket of the DHCP client without a socket: datagrams travel
// in frames of the data connection.
type dhcpConn struct {
	mac    packet.MAC
	send   func(frame []byte) error
	server atomic.Pointer[packet.MAC] // of the last answer, for unicast
	in     chan []byte                // full: dropped, as a socket would
	done   chan struct{}
	once   sync.Once
}

func newDHCPConn(mac packet.MAC, send func([]byte) error) *dhcpConn {
	return &dhcpConn{mac: mac, send: send, in: make(chan []byte, 16), done: make(chan struct{})}
}

// take reports whether the frame is an answer to this client, and so not for the
// tap: one to another client, behind a bridge for instance, is. A nil conn takes
// nothing.
func (c *dhcpConn) take(eth packet.Ethernet) bool {
	const port = packet.IPv4Len + 2 // where it is without IP options; most frames end here
	if c == nil || eth.Type != packet.EtherIPv4 || eth.Dst != c.mac && eth.Dst != packet.Broadcast ||
		len(eth.Payload) < port+2 || eth.Payload[9] != packet.ProtoUDP {
		return false
	}
	ip, ok := packet.ParseIPv4(eth.Payload)
	if !ok || len(ip.Payload) < 4 || ip.Payload[2] != 0 || ip.Payload[3] != clientPort {
		return false
	}
	udp, ok := packet.ParseUDP(ip)
	if !ok || len(udp.Payload) < bootpLen || udp.Payload[0] != 2 || packet.MAC(udp.Payload[28:34]) != c.mac {
		return false
	}
	src := eth.Src // or the whole of eth would be allocated for each frame
	c.server.Store(&src)
	select {
	case c.in <- append([]byte(nil), udp.Payload...):
	default:
	}
	return true
}

// ReadFrom returns the next message.
func (c *dhcpConn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case b := <-c.in:
		return copy(p, b), &net.UDPAddr{Port: serverPort}, nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo sends a message, from the address that the client says it has in there
// (ciaddr), and to the Ethernet address that answered last unless it is a
// broadcast.
func (c *dhcpConn) WriteTo(p []byte, to net.Addr) (int, error) {
	link := packet.Link{Src: c.mac, Dst: packet.Broadcast}
	src := netip.IPv4Unspecified()
	dst := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if u, ok := to.(*net.UDPAddr); ok && u.IP.To4() != nil {
		dst = netip.AddrFrom4([4]byte(u.IP.To4()))
	}
	if mac := c.server.Load(); mac != nil && dst != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		link.Dst = *mac
	}
	if len(p) >= bootpLen {
		src = netip.AddrFrom4([4]byte(p[12:16]))
	}
	f := packet.AppendUDP(nil, link, netip.AddrPortFrom(src, clientPort), netip.AddrPortFrom(dst, serverPort), p)
	if err := c.send(f); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends ReadFrom.
func (c *dhcpConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// LocalAddr returns the port of a client.
func (c *dhcpConn) LocalAddr() net.Addr { return &net.UDPAddr{Port: clientPort} }

// The client bounds its waits itself.
func (c *dhcpConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *dhcpConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *dhcpConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
