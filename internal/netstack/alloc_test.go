// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Fewer than one each: the race detector makes pools forgetful.
func TestSendingAllocatesNothing(t *testing.T) {
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	sent := 0
	l := &link{addr: tcpip.LinkAddress(mac[:]), parts: new(sync.Pool), output: func(dst packet.MAC, parts [][]byte) {
		if dst == mac && len(parts) == 2 && len(parts[0]) == packet.EthernetLen && len(parts[1]) == 1000 {
			sent++
		}
	}}
	pkt := newPacket(header.EthernetMinimumSize, make([]byte, 1000))
	defer pkt.DecRef()
	pkt.EgressRoute.RemoteLinkAddress = l.addr
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	l.AddHeader(pkt)
	var pkts stack.PacketBufferList
	pkts.PushBack(pkt)
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = l.WritePackets(pkts) }))
	require.Equal(t, 1001, sent)
}

// Nor is a datagram copied once more for its handler.
func TestTakingADatagramCopiesItOnce(t *testing.T) {
	const size, times = 60_000, 200
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	s, err := New(Config{MTU: 1500, MAC: mac[:], Router: true, Output: func(packet.MAC, [][]byte) {}})
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.AddAddress(netip.MustParsePrefix("192.168.127.1/24")))
	taken := 0
	s.HandleUDP(func(_, _ netip.AddrPort, payload []byte) bool { taken += len(payload); return true })
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
