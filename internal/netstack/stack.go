// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// nic is the number of the only network card.
const nic tcpip.NICID = 1

// TCP buffers of each direction. gVisor lets the receive buffer grow with what
// is read in a round trip (tcpip.TCPModerateReceiveBufferOption), the send buffer
// with the congestion window, and neither shrinks: what idles or stalls from the
// start costs the first, what is busy may come to maxTCPBuffer, and twice that for what
// comes in, of which the window is half. gVisor would begin with 1 MiB each. The more
// connections there are, the less the next ones have: what each would have of
// allTCPBuffers, though not less than leastBuffer.
const (
	tcpBuffer     = 256 << 10
	narrowBuffer  = 1 << 20 // of what comes in from a peer that is not wide
	leastBuffer   = 32 << 10
	maxTCPBuffer  = 4 << 20
	allTCPBuffers = 256 << 20
)

// timeWait is how long a connection that this side closed first lingers. The
// usual minute is for segments astray in the Internet. Here none outlives a
// queue, and gVisor ignores the request of a guest that uses its port again.
const timeWait = 2 * time.Second

// Config says what a [Stack] is. MTU, MAC and Output are required.
type Config struct {
	MTU int
	MAC net.HardwareAddr
	// Output takes the frames that the stack sends. It is called concurrently,
	// must not block, and must not keep parts. h says what is left to do to the
	// frame; all protocol headers are in the first of parts.
	Output func(dst packet.MAC, h frame.Header, parts [][]byte)
	// Peer returns who is behind an address of the link, or nil. It must not block.
	// Without it there is one peer, which is never full, and wide.
	Peer func(packet.MAC) Peer
	// Router makes the stack accept packets for any address, and speak from
	// any: what TCP and UDP do not find a socket for goes to HandleTCP and
	// HandleUDP.
	Router bool
}

// A Stack is a network stack with one Ethernet card. Its methods may be called
// concurrently.
type Stack struct {
	stack *stack.Stack
	link  *link
	clock *clock
	peer  func(packet.MAC) Peer

	closeOnce sync.Once
	growth    growth
	orphans   orphans
	pending   pendingTCP
	lastID    atomic.Uint32 // of the packets that the stack had no part in

	delivering sync.RWMutex // held by Deliver: a fragment that comes in during stack.Close panics

	mu     sync.RWMutex // held while an endpoint is made and registered
	closed bool
}

// New returns a stack without addresses.
func New(cfg Config) (*Stack, error) {
	s := &Stack{
		clock:   newClock(),
		peer:    cfg.Peer,
		orphans: orphans{max: maxOrphans},
		link:    &link{addr: tcpip.LinkAddress(cfg.MAC), output: cfg.Output},
	}
	s.link.mtu.Store(uint32(cfg.MTU))
	s.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
		Clock:              s.clock,
	})
	if err := s.configure(cfg.Router); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stack) configure(router bool) error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	rack := tcpip.TCPRecovery(0) // gVisor's RACK retransmits without cause on a path that batches
	// gVisor's CUBIC, with losses while its window is small, computes one of no segment
	// at all: nothing is under way then that could bring it back, and the connection
	// hangs for good. What is behind a queue of our own has no need of it.
	reno := tcpip.CongestionControlOption("reno")
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, opt := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &rack, &reno, &wait} {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return fmt.Errorf("netstack: %T: %w", opt, asError(err))
		}
	}
	if err := s.connections(0); err != nil {
		return fmt.Errorf("netstack: TCP buffers: %w", err)
	}
	if err := s.stack.CreateNIC(nic, s.link); err != nil {
		return fmt.Errorf("netstack: create network card: %w", asError(err))
	}
	if router {
		if err := s.stack.SetPromiscuousMode(nic, true); err != nil {
			return fmt.Errorf("netstack: promiscuous mode: %w", asError(err))
		}
		if err := s.stack.SetSpoofing(nic, true); err != nil {
			return fmt.Errorf("netstack: spoofing: %w", asError(err))
		}
	}
	return nil
}

// AddAddress gives the card an address, for which it answers ARP and echo. The
// first is where connections come from.
func (s *Stack) AddAddress(p netip.Prefix) error {
	err := s.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(p.Addr()), PrefixLen: p.Bits()},
	}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("netstack: add address %s: %w", p, asError(err))
	}
	s.changeOwn(func(own []netip.Addr) []netip.Addr { return append(own, p.Addr()) })
	return nil
}

// RemoveAddress takes an address away again.
func (s *Stack) RemoveAddress(a netip.Addr) error {
	if err := s.stack.RemoveAddress(nic, address(a)); err != nil {
		return fmt.Errorf("netstack: remove address %s: %w", a, asError(err))
	}
	s.changeOwn(func(own []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(own, func(o netip.Addr) bool { return o == a })
	})
	return nil
}

func (s *Stack) changeOwn(change func([]netip.Addr) []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var own []netip.Addr
	if old := s.link.own.Load(); old != nil {
		own = slices.Clone(*old)
	}
	own = change(own)
	s.link.own.Store(&own)
}

// SetRoutes says which addresses are on the link, and through whom the others
// are reached; a zero gateway: not at all.
func (s *Stack) SetRoutes(link netip.Prefix, gateway netip.Addr) error {
	subnet, err := tcpip.NewSubnet(address(link.Masked().Addr()), tcpip.MaskFromBytes(net.CIDRMask(link.Bits(), 32)))
	if err != nil {
		return fmt.Errorf("netstack: route to %s: %w", link, err)
	}
	routes := []tcpip.Route{{Destination: subnet, NIC: nic}}
	if gateway.IsValid() {
		routes = append(routes, tcpip.Route{Destination: header.IPv4EmptySubnet, Gateway: address(gateway), NIC: nic})
	}
	s.stack.SetRouteTable(routes)
	return nil
}

// SetMTU changes the MTU of the card.
func (s *Stack) SetMTU(mtu int) { s.link.mtu.Store(uint32(mtu)) }

// Deliver hands an Ethernet frame to the stack, which copies it.
// It must not be called from within Output.
func (s *Stack) Deliver(f []byte) { s.deliver(frame.Header{}, f, nil) }

func (s *Stack) deliver(h frame.Header, f []byte, rest *buffer.View) {
	switch {
	case rest != nil:
	case packet.IsFragment(f):
		// What it is a part of can be verified only when it is whole, by the stack: it
		// goes in alone, while the card does not claim to have done so. (Nobody leaves
		// the checksum of a fragment to another.)
		s.delivering.Lock()
		defer s.delivering.Unlock()
		s.link.unverified.Store(true)
		defer s.link.unverified.Store(false)
		s.link.deliver(f, nil)
		return
	case h.Flags&frame.NeedsChecksum == 0 && !packet.Intact(f):
		return
	}
	s.delivering.RLock()
	defer s.delivering.RUnlock()
	s.link.deliver(f, rest)
}

// A Neighbor is an entry of the ARP table.
type Neighbor struct {
	Addr  netip.Addr
	MAC   net.HardwareAddr // nil while unresolved
	State string
}

// Neighbors returns the ARP table.
func (s *Stack) Neighbors() []Neighbor {
	entries, err := s.stack.Neighbors(nic, ipv4.ProtocolNumber)
	if err != nil {
		return nil
	}
	var n []Neighbor
	for _, e := range entries {
		n = append(n, Neighbor{Addr: addr(e.Addr), MAC: net.HardwareAddr(e.LinkAddr), State: e.State.String()})
	}
	return n
}

// maxUDPPayload is what fits the length of an IPv4 packet.
const maxUDPPayload = 1<<16 - 1 - packet.IPv4Len - packet.UDPLen

// WriteUDP sends one datagram from any address.
func (s *Stack) WriteUDP(src, dst netip.AddrPort, payload []byte) error {
	if len(payload) > maxUDPPayload {
		return fmt.Errorf("netstack: datagram of %d bytes: %w", len(payload), errMessageSize)
	}
	return s.writeIPv4(src.Addr(), dst.Addr(), udp.ProtocolNumber, header.UDPMinimumSize, payload, func(pkt *stack.PacketBuffer, r *stack.Route) {
		pkt.TransportProtocolNumber = udp.ProtocolNumber
		encodeUDP(pkt.TransportHeader().Push(header.UDPMinimumSize), r, src.Port(), dst.Port(), payload)
	})
}

// WriteICMP sends one ICMP message, whose checksum is right already, from any
// address.
func (s *Stack) WriteICMP(src, dst netip.Addr, message []byte) error {
	if len(message) < header.ICMPv4MinimumSize || len(message) > maxUDPPayload {
		return fmt.Errorf("netstack: ICMP message of %d bytes: %w", len(message), errMessageSize)
	}
	return s.writeIPv4(src, dst, icmp.ProtocolNumber4, header.ICMPv4MinimumSize, message[header.ICMPv4MinimumSize:], func(pkt *stack.PacketBuffer, _ *stack.Route) {
		copy(pkt.TransportHeader().Push(header.ICMPv4MinimumSize), message)
		pkt.TransportProtocolNumber = icmp.ProtocolNumber4
	})
}

func (s *Stack) writeIPv4(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, headerLen int, payload []byte, encode func(*stack.PacketBuffer, *stack.Route)) error {
	r, err := s.stack.FindRoute(nic, address(src), address(dst), ipv4.ProtocolNumber, false)
	if err != nil {
		return asError(err)
	}
	defer r.Release()
	pkt := newPacket(headerLen+int(r.MaxHeaderLength()), payload)
	defer pkt.DecRef()
	encode(pkt, r)
	return asError(r.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: r.DefaultTTL(), TOS: stack.DefaultTOS}, pkt))
}

// Close ends the stack: every connection is aborted, every request refused,
// every goroutine and timer gone when it returns.
func (s *Stack) Close() {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true // what is registered now is all there will be
		s.mu.Unlock()
		s.pending.close()
		s.delivering.Lock()
		s.link.dispatcher.Store(nil) // no frame comes in any more
		s.delivering.Unlock()
		s.stack.Close()
		s.pending.requests.Wait()
		// A second time for what a request under way had made meanwhile.
		s.stack.Close()
		s.stack.Wait()
		s.clock.close()
	})
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func addr(a tcpip.Address) netip.Addr {
	if a.Len() != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4(a.As4())
}

func fullAddress(ap netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{NIC: nic, Port: ap.Port()}
	if a := ap.Addr(); a.IsValid() && !a.IsUnspecified() {
		f.Addr = address(a)
	}
	return f
}

func addrPort(a tcpip.FullAddress) netip.AddrPort {
	ip := addr(a.Addr)
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	return netip.AddrPortFrom(ip, a.Port)
}

// ErrClosed is returned for what needs a stack that is no more. It is a
// [net.ErrClosed].
var ErrClosed = fmt.Errorf("netstack: stack: %w", net.ErrClosed)

// open makes an endpoint that setUp binds or connects, unless the stack is closed.
func (s *Stack) open(proto tcpip.TransportProtocolNumber, setUp func(tcpip.Endpoint) tcpip.Error) (ep tcpip.Endpoint, wq *waiter.Queue, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	wq = new(waiter.Queue)
	ep, terr := s.stack.NewEndpoint(proto, ipv4.ProtocolNumber, wq)
	if terr != nil {
		return nil, nil, asError(terr)
	}
	if terr = setUp(ep); terr != nil {
		ep.Close()
		return nil, nil, asError(terr)
	}
	return ep, wq, nil
}

func (s *Stack) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}
