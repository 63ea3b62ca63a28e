// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

// kernel returns a packet socket that takes virtio-net headers, and the tap, in a
// namespace of its own, that it sends to: one without offload, so that the kernel
// makes plain frames of what is sent.
func kernel(t *testing.T) (socket int, tap *os.File) {
	t.Helper()
	house.NeedRoot(t)
	runtime.LockOSThread() // for good: the thread and its namespace end with the test
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
	link := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: "tap0"}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: netlink.TUNTAP_NO_PI, Queues: 1, NonPersist: true,
	}
	require.NoError(t, netlink.LinkAdd(link))
	tap = link.Fds[0]
	t.Cleanup(func() { _ = tap.Close() })
	require.NoError(t, netlink.LinkSetMTU(link, 65535-14))
	require.NoError(t, netlink.LinkSetTxQLen(link, 10000))
	require.NoError(t, netlink.LinkSetUp(link))
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(socket) })
	require.NoError(t, unix.SetsockoptInt(socket, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	require.NoError(t, unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20))
	require.NoError(t, unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: link.Index}))
	return socket, tap
}

// What Linux makes of a frame with a header is what the Segmenter makes of it.
func TestSegmentsAreThoseOfTheKernel(t *testing.T) {
	socket, tap := kernel(t)
	buf := make([]byte, 1<<17)
	next := func() []byte {
		require.NoError(t, tap.SetReadDeadline(time.Now().Add(patience)))
		for {
			n, err := tap.Read(buf)
			require.NoError(t, err)
			if buf[0] == 2 && buf[5] == 2 { // not what the kernel itself sends
				return slices.Clone(buf[:n])
			}
		}
	}
	var s frame.Segmenter
	send := func(h frame.Header, f []byte) {
		b := make([]byte, frame.HeaderLen, frame.HeaderLen+len(f))
		h.Put(b)
		_, err := unix.Write(socket, append(b, f...))
		require.NoError(t, err)
		for i, ours := range segment(t, &s, h, split(f, int(h.HdrLen), 333)) {
			theirs := next()
			require.True(t, bytes.Equal(ours, theirs), "frame %d of %+v:\n%x\n%x", i, h, ours[:min(80, len(ours))], theirs[:min(80, len(theirs))])
		}
	}
	for _, n := range []int{1, 48, 49, 1448, 1449, 2896, 2897, 14480, 65400} {
		for _, size := range []int{48, 1447, 1448} {
			c := newStream(pattern(n, n), timestamps...)
			c.tcp.PSH, c.tcp.FIN, c.tcp.CWR, c.tcp.ECE = true, true, true, true
			c.ip.Id, c.tcp.Seq = 0xfffe, 0xffff_fff0
			if n > size { // of a single segment Linux drops a frame that says it were several
				send(c.super(t, size))
			}
			h, f := unsummed(c.part(t, 0, n, 1<<20), 16)
			h.HdrLen = h.CsumStart + 18
			send(h, f)
		}
		h, f := unsummed(udp(t, &layers.IPv4{}, pattern(n, n)), 6)
		h.HdrLen = h.CsumStart + 8
		send(h, f)
	}
}
