// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A wire sees all frames of an interface, and sends such that the kernel would
// not make.
type wire struct {
	t    *testing.T
	file *os.File

	mu   sync.Mutex
	seen []gopacket.Packet
}

func newWire(t *testing.T, n *namespace, iface string) *wire {
	t.Helper()
	w := &wire{t: t}
	require.NoError(t, n.do(func() error {
		link, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		if err != nil {
			return err
		}
		w.file = os.NewFile(uintptr(fd), iface)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			length, err := w.file.Read(buf)
			if err != nil {
				return
			}
			p := gopacket.NewPacket(append([]byte(nil), buf[:length]...), layers.LayerTypeEthernet, gopacket.Default)
			w.mu.Lock()
			w.seen = append(w.seen, p)
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = w.file.Close()
		<-done
	})
	return w
}

// saw reports whether a packet was seen for which match holds.
func (w *wire) saw(match func(ip *layers.IPv4, p gopacket.Packet) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.seen {
		if ip, ok := p.NetworkLayer().(*layers.IPv4); ok && match(ip, p) {
			return true
		}
	}
	return false
}

// send puts a packet on the wire, from one MAC and IP address to others.
func (w *wire) send(src, dst string, from, to netip.Addr, proto layers.IPProtocol, body ...gopacket.SerializableLayer) {
	w.t.Helper()
	srcMAC, err := net.ParseMAC(src)
	require.NoError(w.t, err)
	dstMAC, err := net.ParseMAC(dst)
	require.NoError(w.t, err)
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
	all := []gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: srcMAC, DstMAC: dstMAC, EthernetType: layers.EthernetTypeIPv4}, ip}
	for _, layer := range body {
		if l, ok := layer.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			require.NoError(w.t, l.SetNetworkLayerForChecksum(ip))
		}
		all = append(all, layer)
	}
	buf := gopacket.NewSerializeBuffer()
	require.NoError(w.t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...))
	_, err = w.file.Write(buf.Bytes())
	require.NoError(w.t, err)
}
