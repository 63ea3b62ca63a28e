// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"testing"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// plain is RFC 1071 word by word.
func plain(sum uint32, b []byte) uint16 {
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum>>16 + sum&0xffff)
}

// FuzzChecksum: adding many bytes at a time is adding them word by word.
func FuzzChecksum(f *testing.F) {
	f.Add(uint32(0), []byte{})
	f.Add(uint32(0xffff), []byte{1})
	f.Add(uint32(0xffff_ffff), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add(uint32(77), make([]byte, 1461))
	f.Fuzz(func(t *testing.T, sum uint32, b []byte) {
		if got, want := packet.Sum(sum, b), plain(sum>>16+sum&0xffff, b); got != want && got+want != 0xffff { // two forms of 0
			t.Fatalf("%04x, want %04x, of %x and %x", got, want, sum, b)
		}
		if packet.Checksum(sum, b) != ^packet.Sum(sum, b) {
			t.Fatal("not the complement")
		}
		if cut := len(b) / 2 &^ 1; packet.Sum(uint32(packet.Sum(sum, b[:cut])), b[cut:]) != packet.Sum(sum, b) {
			t.Fatal("not to be continued")
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		packet.Sum(1, buf)
	}
}
