// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"net/netip"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// outboundUDP carries a guest's datagram, and what comes back.
func (s *Switch) outboundUDP(peer uint64, src, dst netip.AddrPort, payload []byte) bool {
	to, err := s.net.outbound(dst.Addr())
	if err != nil {
		return !s.own(dst.Addr()) // an own address says "port unreachable", a foreign one nothing
	}
	idle := udpIdle
	if dst.Port() == 53 {
		idle = dnsIdle
	}
	s.flows.send(flowKey{proto: packet.ProtoUDP, src: src, dst: dst}, payload, time.Now(), func() flowEnd {
		if s.stack.TakesUDP(src, dst) {
			return nil // ListenPacket has come between, and this flow would keep from it what follows
		}
		return &udpFlow{s: s, of: account{guest: peer}, src: src, dst: dst, to: netip.AddrPortFrom(to, dst.Port()), timeout: idle}
	})
	return true
}

// outboundMore is outboundUDP for the next datagram of a flow that there is, and
// reports false if there is none: the stack has nothing to add to it.
func (s *Switch) outboundMore(ip packet.IPv4, now time.Time) bool {
	udp, ok := packet.ParseUDP(ip)
	if !ok || len(ip.Header) != packet.IPv4Len || len(udp.Payload) != len(ip.Payload)-packet.UDPLen {
		return false
	}
	src, dst := netip.AddrPortFrom(ip.Src, udp.SrcPort), netip.AddrPortFrom(ip.Dst, udp.DstPort)
	return s.flows.send(flowKey{proto: packet.ProtoUDP, src: src, dst: dst}, udp.Payload, now, nil)
}

// udpFlow is one guest socket talking to one address outside.
type udpFlow struct {
	s            *Switch
	of           account
	src, dst, to netip.AddrPort
	timeout      time.Duration
}

func (f *udpFlow) account() account { return f.of }

func (f *udpFlow) idle() time.Duration { return f.timeout }

func (f *udpFlow) dial(ctx context.Context) (flowConn, error) {
	return f.s.net.DialOutbound(ctx, "udp", f.to.String())
}

func (f *udpFlow) reply(payloads [][]byte) {
	f.s.stack.SendUDP(f.dst, f.src, payloads)
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
