// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A Message is a frame of EtherType [packet.EtherOffload], by which two ends agree
// on the offload format:
//
//	guest: OFFER, its first frame, and goes on in plain format
//	host:  ACCEPT, its last plain frame, with the features that both know
//	guest: COMMIT, its last plain frame
//
// All three carry the guest's nonce, which nobody else knows.
type Message struct {
	Kind     Kind
	Features uint32
	Nonce    [16]byte
}

// A Kind says which Message it is.
type Kind uint8

// The kinds.
const (
	Offer Kind = iota + 1
	Accept
	Commit
)

// FeatureTCPv4 is the offload of checksums and of TCP segmentation over IPv4.
const FeatureTCPv4 = 1 << 0

// The payload of a Message: magic, version, kind, two bytes of zero, features and
// nonce; zeros fill the frame up to the least that Ethernet has. All is
// little-endian, as the rest of the format.
const (
	magic      = "gnof"
	version    = 1
	messageLen = 60
	atVersion  = packet.EthernetLen + len(magic)
	atKind     = atVersion + 1
	atFeatures = atKind + 3
	atNonce    = atFeatures + 4
)

// Frame returns the message as a frame.
func (m Message) Frame(dst, src packet.MAC) []byte {
	b := make([]byte, messageLen)
	copy(b, dst[:])
	copy(b[6:], src[:])
	binary.BigEndian.PutUint16(b[12:], packet.EtherOffload)
	copy(b[packet.EthernetLen:], magic)
	b[atVersion], b[atKind] = version, byte(m.Kind)
	binary.LittleEndian.PutUint32(b[atFeatures:], m.Features)
	copy(b[atNonce:], m.Nonce[:])
	return b
}

// ParseMessage reads a message, and reports whether f is one of this version.
func ParseMessage(f []byte) (Message, bool) {
	if len(f) < messageLen || binary.BigEndian.Uint16(f[12:]) != packet.EtherOffload ||
		string(f[packet.EthernetLen:atVersion]) != magic || f[atVersion] != version {
		return Message{}, false
	}
	m := Message{Kind: Kind(f[atKind]), Features: binary.LittleEndian.Uint32(f[atFeatures:])}
	copy(m.Nonce[:], f[atNonce:])
	return m, m.Kind >= Offer && m.Kind <= Commit
}
