// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"slices"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A negotiation is how far a guest and this end have come to agree on the offload
// format (PROTOCOL, "Offload extension").
type negotiation struct {
	accepted, committed bool
	nonce               [16]byte
}

// negotiate takes a message, and reports false for one that is out of place.
func (s *Switch) negotiate(p *port, t *negotiation, m frame.Message, first bool, f []byte) bool {
	switch {
	case m.Kind == frame.Offer && first && p.framing == FramingAuto && m.Features&frame.FeatureTCPv4 != 0:
		t.accepted, t.nonce = true, m.Nonce
		p.offload.Store(true)
		accept := frame.Message{Kind: frame.Accept, Features: frame.FeatureTCPv4, Nonce: m.Nonce}
		p.queue.Upgrade(accept.Frame(packet.MAC(f[6:12]), s.net.gatewayMAC))
		return true
	case m.Kind == frame.Commit && t.accepted && !t.committed && m.Nonce == t.nonce:
		t.committed = true
		return true
	default:
		return false
	}
}

func isTCP(eth packet.Ethernet) bool {
	return eth.Type == packet.EtherIPv4 && len(eth.Payload) >= packet.IPv4Len && eth.Payload[9] == packet.ProtoTCP
}

// captured tells a capture of a frame, as those that it stands for.
func (s *Switch) captured(port int, in bool, h frame.Header, parts ...[]byte) {
	if s.capture.Active() {
		new(frame.Segmenter).Segment(h, parts, func(pieces [][]byte) { s.capture.Frame(port, in, slices.Concat(pieces...)) })
	}
}
