// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// gVisor copies it; the handler gets that copy.
func TestTakingADatagramCopiesItOnce(t *testing.T) {
	const size, times = 60_000, 200
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	s, err := New(Config{MTU: 1500, MAC: mac[:], Router: true, Output: func(packet.MAC, frame.Header, [][]byte) {}})
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.AddAddress(netip.MustParsePrefix("192.168.127.1/24")))
	taken := 0
	s.HandleUDP(func(_ uint64, _, _ netip.AddrPort, payload []byte) bool { taken += len(payload); return true })
	f := packet.AppendUDP(nil, packet.Link{Src: mac, Dst: mac},
		netip.MustParseAddrPort("192.168.127.2:1"), netip.MustParseAddrPort("198.51.100.7:2"), make([]byte, size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		s.Deliver(f)
	}
	runtime.ReadMemStats(&after)
	require.Equal(t, times*size, taken)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(times*size*3/4), "gVisor's own copy is in a pool")
}
