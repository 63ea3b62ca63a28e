// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"net/netip"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
)

// Bounds on connections and flows through the gateway: in all, which protects the
// host's descriptors and memory, and for each account, which leaves something for the
// others.
const (
	maxRelays          = 16384
	maxGuestRelays     = maxRelays / 4
	maxLargeBuffers    = 1024 // of relays, 128 KiB each; a guest has a quarter of them
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
	of := account{guest: r.Peer}
	if err != nil || !s.relays.take(of) {
		r.Refuse()
		return
	}
	defer s.relays.give(of)
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
	s.relay(s.ctx, of, guest, host)
}
