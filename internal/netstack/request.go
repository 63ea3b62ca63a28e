// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/rancher-sandbox/guestnet/internal/fair"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A Request is a TCP connection that somebody on the link asks for and that no
// listener of the stack takes. The handler answers it once: Accept, Refuse or
// Drop. Not answering is Drop.
type Request struct {
	Src, Dst netip.AddrPort
	Peer     uint64 // the ID of who asks, or 0

	stack *Stack
	fwd   *tcp.ForwarderRequest
	entry *pendingEntry
	done  bool
}

// Accept completes the handshake. It returns when the connection stands, or with
// an error when the peer went away or the request was crowded out.
func (r *Request) Accept() (*Conn, error) {
	if r.done {
		return nil, fmt.Errorf("netstack: accept: request of %s is answered already: %w", r.Src, net.ErrClosed)
	}
	defer r.complete(false)
	wq := new(waiter.Queue)
	accepted, joined := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(r.entry.ctx, func() {
		defer close(joined)
		r.abortHandshake(accepted)
	})
	ep, err := r.fwd.CreateEndpoint(wq)
	close(accepted)
	if !stop() {
		<-joined
	}
	switch {
	case err == nil:
		return r.stack.newConn(ep, wq), nil
	case r.stack.isClosed():
		return nil, ErrClosed
	default:
		return nil, fmt.Errorf("netstack: accept %s from %s: %w", r.Dst, r.Src, asError(err))
	}
}

// abortHandshake ends the handshake under way, which does not look at a context
// itself. Its endpoint appears a moment after it has begun, and nobody says when.
func (r *Request) abortHandshake(accepted <-chan struct{}) {
	for again := time.Duration(0); ; again = time.Millisecond {
		select {
		case <-accepted:
			return
		case <-time.After(again):
		}
		ep := r.stack.stack.FindTransportEndpoint(ipv4.ProtocolNumber, tcp.ProtocolNumber, r.entry.id, nic)
		e, ok := ep.(tcpip.Endpoint)
		if !ok {
			continue
		}
		// It may be a listener that has come up since: that is not ours.
		if info, ok := e.Info().(*stack.TransportEndpointInfo); ok && info.ID == r.entry.id {
			e.Abort()
			return
		}
	}
}

// Refuse answers with RST: the peer sees "connection refused".
func (r *Request) Refuse() { r.complete(true) }

// Drop does not answer; the peer will ask again.
func (r *Request) Drop() { r.complete(false) }

// Unreachable answers with an ICMP "destination unreachable" of that code, from
// the address that was asked for.
func (r *Request) Unreachable(code uint8) {
	r.complete(false)
	quoted := make([]byte, 8)
	binary.BigEndian.PutUint16(quoted, r.Src.Port())
	binary.BigEndian.PutUint16(quoted[2:], r.Dst.Port())
	binary.BigEndian.PutUint32(quoted[4:], r.entry.seq) // the peer checks it (RFC 5927)
	_ = r.stack.WriteUnreachable(code, r.Src.Addr(), r.Dst.Addr(), packet.ProtoTCP, quoted)
}

func (r *Request) complete(reset bool) {
	if !r.done {
		r.done = true
		r.fwd.Complete(reset)
		r.stack.pending.remove(r.entry)
	}
}

// WriteUnreachable tells src that a packet it sent to dst was not delivered
// (RFC 792); quoted is the first 8 bytes of what followed the IP header.
func (s *Stack) WriteUnreachable(code uint8, src, dst netip.Addr, proto uint8, quoted []byte) error {
	b := make([]byte, header.ICMPv4MinimumSize+header.IPv4MinimumSize, header.ICMPv4MinimumSize+header.IPv4MinimumSize+8)
	b[0], b[1] = byte(header.ICMPv4DstUnreachable), code
	ip := header.IPv4(b[header.ICMPv4MinimumSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + len(quoted)), TTL: 64, Protocol: proto,
		SrcAddr: address(src), DstAddr: address(dst),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	b = append(b, quoted[:min(8, len(quoted))]...)
	binary.BigEndian.PutUint16(b[2:], packet.Checksum(0, b))
	return s.WriteICMP(dst, src, b)
}

// Limits on requests that are not answered yet. Beyond them the oldest, of the peer that
// has most, gives way to the newest, so that neither blackholes nor half-open floods keep
// out a connection that would succeed. Those that have given way and whose handlers
// have not returned yet are at most as many again.
const (
	maxPending     = 2048
	maxPendingPeer = 512
)

// pendingTCP is the table of requests under way. gVisor starts a goroutine for
// each; the table is what makes them known and ends them.
type pendingTCP struct {
	requests sync.WaitGroup

	mu     sync.Mutex
	closed bool
	byID   map[stack.TransportEndpointID]*pendingEntry // until the handler has answered
	table  fair.Table[uint64, *pendingEntry]           // without those that have given way
}

type pendingEntry struct {
	id     stack.TransportEndpointID
	seq    uint32
	ctx    context.Context
	cancel context.CancelFunc
	place  *fair.Entry[uint64, *pendingEntry]
}

// HandleTCP makes handle answer the requests for connections that no listener
// takes; it runs in a goroutine of its own for each, and its context ends when
// the stack is closed or the request is crowded out. It is to be called once,
// before frames are delivered.
func (s *Stack) HandleTCP(handle func(context.Context, *Request)) {
	fwd := tcp.NewForwarder(s.stack, tcpBuffer, 2*maxPending, func(r *tcp.ForwarderRequest) {
		defer s.pending.requests.Done()
		id := r.ID()
		req := &Request{
			Src:   netip.AddrPortFrom(addr(id.RemoteAddress), id.RemotePort),
			Dst:   netip.AddrPortFrom(addr(id.LocalAddress), id.LocalPort),
			stack: s, fwd: r, entry: s.pending.lookup(id),
		}
		req.Peer = req.entry.place.Owner
		defer req.complete(false)
		handle(req.entry.ctx, req)
	})
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		h := header.TCP(pkt.TransportHeader().Slice())
		// The forwarder takes whatever has SYN and no ACK; all that it gets has to
		// be in the table.
		if h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
			return false // no request: the stack answers it with a reset
		}
		if h.Flags()&(header.TCPFlagRst|header.TCPFlagFin) != 0 {
			return true // nonsense, to be dropped, as Linux does
		}
		if !s.pending.add(id, h.SequenceNumber(), s.sender(pkt)) {
			return true
		}
		if !fwd.HandlePacket(id, pkt) { // a wrong checksum
			s.pending.requests.Done()
			s.pending.remove(s.pending.lookup(id))
		}
		return true
	})
}

// add makes room for a request and reports whether it is to be passed on.
func (p *pendingTCP) add(id stack.TransportEndpointID, seq uint32, peer uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.byID[id] != nil {
		return false
	}
	if p.byID == nil {
		p.byID = make(map[stack.TransportEndpointID]*pendingEntry)
	}
	switch {
	case len(p.byID) >= 2*maxPending:
		return false // the peer asks again
	case p.table.WeightOf(peer) >= maxPendingPeer:
		p.crowdOutLocked(p.table.Oldest(peer).Value)
	case p.table.Weight() >= maxPending:
		p.crowdOutLocked(p.table.Excess().Value)
	}
	e := &pendingEntry{id: id, seq: seq}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.place = p.table.Add(peer, e, 1)
	p.byID[id] = e
	p.requests.Add(1)
	return true
}

func (p *pendingTCP) lookup(id stack.TransportEndpointID) *pendingEntry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id]
}

func (p *pendingTCP) remove(e *pendingEntry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byID, e.id)
	p.crowdOutLocked(e)
}

// crowdOutLocked ends the request and frees its place.
func (p *pendingTCP) crowdOutLocked(e *pendingEntry) {
	e.cancel()
	p.table.Remove(e.place)
}

// close refuses new requests and ends the contexts of those under way.
func (p *pendingTCP) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, e := range p.byID {
		e.cancel()
	}
}

// HandleUDP makes handle take the datagrams that no socket takes; peer is the ID of who
// sent one, or 0. It must not
// block nor keep payload, and reports false for what it does not want: the stack
// answers that with "port unreachable". It is to be called once, before frames
// are delivered.
func (s *Stack) HandleUDP(handle func(peer uint64, src, dst netip.AddrPort, payload []byte) bool) {
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		// It copies only if the datagram came in fragments, and may move the header then.
		payload, ok := pkt.Data().PullUp(pkt.Data().Size())
		h := header.UDP(pkt.TransportHeader().Slice())
		if !ok || int(h.Length()) != header.UDPMinimumSize+len(payload) {
			return true
		}
		if h.Checksum() != 0 && !h.IsChecksumValid(id.RemoteAddress, id.LocalAddress, checksum.Checksum(payload, 0)) {
			return true
		}
		return handle(s.sender(pkt),
			netip.AddrPortFrom(addr(id.RemoteAddress), id.RemotePort),
			netip.AddrPortFrom(addr(id.LocalAddress), id.LocalPort), payload)
	})
}

func newPacket(reserve int, payload []byte) *stack.PacketBuffer {
	return stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: reserve,
		Payload:            buffer.MakeWithData(payload),
	})
}

func foldPayload(sum uint16, payload []byte) uint16 { return checksum.Checksum(payload, sum) }
