// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"net/netip"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Bounds on connections and flows through the gateway: in all, which protects the
// host's descriptors, and for each guest, which leaves something for the others.
const (
	maxRelays          = 16384
	maxGuestRelays     = maxRelays / 2
	maxFlows           = 2048
	maxGuestFlows      = maxFlows / 2
	dialTimeout        = 30 * time.Second
	forwardDialTimeout = 10 * time.Second
	udpIdle            = 90 * time.Second
	dnsIdle            = 10 * time.Second // one question, one answer
	echoIdle           = 10 * time.Second
)

// outboundTCP answers a guest's SYN: with a handshake when the host's end stands,
// with what the network said when it does not. Then it carries the connection.
func (s *Switch) outboundTCP(ctx context.Context, r *netstack.Request) {
	to, err := s.net.outbound(r.Dst.Addr())
	if err != nil || !s.relays.take(r.Src.Addr()) {
		r.Refuse()
		return
	}
	defer s.relays.give(r.Src.Addr())
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	host, err := s.net.DialOutbound(dialCtx, "tcp", netip.AddrPortFrom(to, r.Dst.Port()).String())
	late := dialCtx.Err() != nil
	cancel() // the connection outlives it
	if err != nil {
		switch code, unreachable := unreachableCode(err); {
		case late, isTimeout(err):
			r.Drop() // nobody knows; the guest asks again until its patience ends
		case unreachable:
			r.Unreachable(code)
		default:
			r.Refuse()
		}
		s.log.Debug("outbound connection failed", "from", r.Src, "to", r.Dst, "error", err)
		return
	}
	guest, err := r.Accept()
	if err != nil { // the guest lost interest
		abort(host)
		return
	}
	s.relay(s.ctx, guest, host)
}

// outboundUDP carries a guest's datagram, and what comes back.
func (s *Switch) outboundUDP(src, dst netip.AddrPort, payload []byte) bool {
	to, err := s.net.outbound(dst.Addr())
	if err != nil {
		return !s.own(dst.Addr()) // an own address says "port unreachable", a foreign one nothing
	}
	idle := udpIdle
	if dst.Port() == 53 {
		idle = dnsIdle
	}
	s.flows.send(flowKey{proto: packet.ProtoUDP, src: src, dst: dst}, payload, func() flowEnd {
		return &udpFlow{s: s, src: src, dst: dst, to: netip.AddrPortFrom(to, dst.Port()), timeout: idle}
	})
	return true
}

// udpFlow is one guest socket talking to one address outside.
type udpFlow struct {
	s            *Switch
	src, dst, to netip.AddrPort
	timeout      time.Duration
}

func (f *udpFlow) idle() time.Duration { return f.timeout }

func (f *udpFlow) dial(ctx context.Context) (flowConn, error) {
	return f.s.net.DialOutbound(ctx, "udp", f.to.String())
}

func (f *udpFlow) reply(payload []byte) {
	_ = f.s.stack.WriteUDP(f.dst, f.src, payload) // a datagram may be lost
}

func (f *udpFlow) failed(err error) {
	code := uint8(codePortUnreachable)
	if c, ok := unreachableCode(err); ok {
		code = c
	} else if !isRefused(err) {
		return
	}
	quoted := make([]byte, 0, packet.UDPLen)
	quoted = appendUint16s(quoted, f.src.Port(), f.dst.Port(), packet.UDPLen, 0)
	_ = f.s.stack.WriteUnreachable(code, f.src.Addr(), f.dst.Addr(), packet.ProtoUDP, quoted)
}

func appendUint16s(b []byte, v ...uint16) []byte {
	for _, x := range v {
		b = append(b, byte(x>>8), byte(x))
	}
	return b
}
