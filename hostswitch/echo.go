// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"net/netip"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// forwardEcho sends a guest's echo request on, where this host lets an ordinary
// user do so. An answer is the destination's own; where it can not be asked there
// is none.
func (s *Switch) forwardEcho(p *port, ip packet.IPv4, e packet.Echo) {
	to, err := s.net.outbound(ip.Dst)
	if err != nil || !echoSupported {
		p.drop(dropEcho)
		return
	}
	// The identifier takes the place of the port.
	src, dst := netip.AddrPortFrom(ip.Src, e.ID), netip.AddrPortFrom(ip.Dst, 0)
	message := append([]byte{byte(e.Seq >> 8), byte(e.Seq)}, e.Data...)
	s.flows.send(flowKey{proto: packet.ProtoICMP, src: src, dst: dst}, message, time.Now(), func() flowEnd {
		return &echoFlow{s: s, of: account{guest: p.ID()}, src: src, dst: ip.Dst, to: to}
	})
}

// echoFlow is one "ping" of a guest. Its datagrams are sequence number and data.
type echoFlow struct {
	s   *Switch
	of  account
	src netip.AddrPort
	dst netip.Addr
	to  netip.Addr
}

func (f *echoFlow) account() account { return f.of }

func (f *echoFlow) idle() time.Duration { return echoIdle }

func (f *echoFlow) dial(ctx context.Context) (flowConn, error) { return dialEcho(ctx, f.to) }

func (f *echoFlow) reply(datagrams [][]byte) {
	for _, b := range datagrams {
		f.replyOne(b)
	}
}

func (f *echoFlow) replyOne(b []byte) {
	if len(b) < 2 {
		return
	}
	message := append([]byte{0, 0, 0, 0}, byte(f.src.Port()>>8), byte(f.src.Port()))
	message = append(message, b...)
	sum := packet.Checksum(0, message)
	message[2], message[3] = byte(sum>>8), byte(sum)
	_ = f.s.stack.WriteICMP(f.dst, f.src.Addr(), message)
}

func (f *echoFlow) failed(err error) {
	f.s.log.Debug("echo not sent", "to", f.to, "error", err)
}
