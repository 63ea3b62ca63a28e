// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

var (
	gateway = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd}
	guest   = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	nonce   = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
)

// offerWire is an OFFER byte by byte (PROTOCOL, "Offload extension").
var offerWire = slices.Concat(
	gateway[:], guest[:], []byte{0x88, 0xb5},
	[]byte("gnof"), []byte{1, 1, 0, 0}, []byte{1, 0, 0, 0x80}, nonce[:],
	make([]byte, 18),
)

func TestMessageOnTheWire(t *testing.T) {
	offer := frame.Message{Kind: frame.Offer, Features: 1<<31 | frame.FeatureTCPv4, Nonce: nonce}
	require.Len(t, offerWire, 60)
	require.Equal(t, offerWire, offer.Frame(gateway, guest))
	for kind := range frame.Commit + 1 {
		for _, features := range []uint32{0, frame.FeatureTCPv4, 1<<32 - 1} {
			want := frame.Message{Kind: kind, Features: features, Nonce: nonce}
			m, ok := frame.ParseMessage(want.Frame(gateway, guest))
			require.Equal(t, kind >= frame.Offer, ok)
			if ok {
				require.Equal(t, want, m)
			}
		}
	}
	m, ok := frame.ParseMessage(append(slices.Clone(offerWire), pattern(1, 9000)...)) // a later version may say more
	require.True(t, ok)
	require.Equal(t, offer, m)
}

func TestOnlyMessagesOfThisVersionAreRead(t *testing.T) {
	for n := range 60 {
		_, ok := frame.ParseMessage(offerWire[:n:n])
		require.False(t, ok, "%d bytes", n)
	}
	for i := range offerWire {
		for bit := range 8 {
			wrong := slices.Clone(offerWire)
			wrong[i] ^= 1 << bit
			_, ok := frame.ParseMessage(wrong)
			switch {
			case i >= 12 && i < 19: // EtherType, magic, version
				require.False(t, ok, "byte %d, bit %d", i, bit)
			case i == 19: // of the kinds only COMMIT is one bit from OFFER
				require.Equal(t, bit == 1, ok, "kind %d", wrong[i])
			default:
				require.True(t, ok, "byte %d, bit %d", i, bit)
			}
		}
	}
	for kind := range 256 {
		other := slices.Clone(offerWire)
		other[19] = byte(kind)
		m, ok := frame.ParseMessage(other)
		require.Equal(t, kind >= 1 && kind <= 3, ok)
		if ok {
			require.Equal(t, frame.Kind(kind), m.Kind)
		}
	}
}

// FuzzMessage: what is read is what is written, and nothing else is a message.
func FuzzMessage(f *testing.F) {
	f.Add(offerWire)
	f.Add(offerWire[:59])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := frame.ParseMessage(b)
		if like := len(b) >= 60 && bytes.Equal(b[12:19], offerWire[12:19]) && b[19] >= 1 && b[19] <= 3; ok != like {
			t.Fatalf("%v: %x", ok, b)
		}
		if !ok {
			return
		}
		again := m.Frame(packet.MAC(b[:6]), packet.MAC(b[6:12]))
		want := slices.Concat(b[:20], []byte{0, 0}, b[22:42], make([]byte, 18))
		if !bytes.Equal(again, want) {
			t.Fatalf("%x\n%x", b, again)
		}
	})
}
