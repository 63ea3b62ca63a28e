// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

const (
	tcpSYN = 0x02
	tcpACK = 0x10
)

// tcp returns a TCP segment; options are a multiple of four bytes.
func (g *guest) tcp(dstMAC packet.MAC, src, dst netip.AddrPort, seq, ack uint32, flags byte, options, payload []byte) []byte {
	b := make([]byte, 20, 20+len(options)+len(payload))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = byte(5+len(options)/4)<<4, flags
	binary.BigEndian.PutUint16(b[14:], 65535)
	b = append(append(b, options...), payload...)
	pseudo := slices.Concat(src.Addr().AsSlice(), dst.Addr().AsSlice(), []byte{0, packet.ProtoTCP, byte(len(b) >> 8), byte(len(b))})
	binary.BigEndian.PutUint16(b[16:], packet.Checksum(uint32(packet.Sum(0, pseudo)), b))
	return ipv4Frame(packet.Link{Src: g.mac, Dst: dstMAC}, src.Addr(), dst.Addr(), packet.ProtoTCP, 0, b)
}

// shakeHands opens a connection by hand, and returns what to acknowledge.
func (g *guest) shakeHands(t testing.TB, src, dst netip.AddrPort) (ack uint32) {
	t.Helper()
	require.Equal(t, gatewayMAC, g.resolve(t, gateway)) // which lets the gateway know where the answer goes
	answers := g.watch(func(e packet.Ethernet) bool {
		return isProto(packet.ProtoTCP)(e) && binary.BigEndian.Uint16(e.Payload[22:]) == src.Port() && e.Payload[33]&tcpSYN != 0
	})
	defer g.unwatch(answers)
	g.send(g.tcp(gatewayMAC, src, dst, 0, 0, tcpSYN, nil, nil))
	ack = binary.BigEndian.Uint32(await(t, answers, "SYN ACK")[38:]) + 1
	g.send(g.tcp(gatewayMAC, src, dst, 1, ack, tcpACK, nil, nil))
	return ack
}

// sent waits until the guest's cable is idle: what is sent next comes alone.
func (g *guest) sent(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		if n, _ := g.out.Len(); n == 0 {
			return
		}
		require.True(t, time.Now().Before(deadline), "nobody reads")
	}
}

// nothingBut requires that the guest gets none of what was sent before the marker.
func nothingBut(t testing.TB, seen <-chan []byte, what string) {
	t.Helper()
	for {
		e, _ := packet.ParseEthernet(await(t, seen, "the marker"))
		if isMarker(e) {
			return
		}
		require.NotEqual(t, uint16(packet.EtherIPv4), e.Type, what)
	}
}

// A guest says how short its segments have to be: shorter than an offload header can
// say, they are as short as it can. Neither the connection nor a capture minds.
func TestShortSegments(t *testing.T) {
	for mss, longest := range map[int]int{28: 48, 48: 48, 80: 88, 100: 100, 536: 536} {
		sw := newSwitch(t, hostswitch.Config{})
		film := new(film)
		ctx, cut := context.WithCancel(t.Context())
		shot := during(func() { _ = sw.Capture(ctx, film) })
		g := attach(t, sw, 2)
		eventually(t, func() bool { g.resolve(t, gateway); return len(film.frames()) > 0 }, "the capture")
		g.SetMTU(mss + 40)
		segments := g.watch(isProto(packet.ProtoTCP))
		for range 3 {
			expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"}) // something to tell
		}
		status, body := call(t, g.http(), http.MethodGet, gatewayAPI+"/services/forwarder/all", "")
		require.Equal(t, http.StatusOK, status)
		require.Greater(t, len(body), 3*48)
		most := 0
		for len(segments) > 0 {
			ip := ipv4Of(t, <-segments)
			most = max(most, len(ip.Payload)-int(ip.Payload[12]>>4)*4)
		}
		require.LessOrEqual(t, most, longest, "MSS %d", mss)
		require.GreaterOrEqual(t, most, min(48, longest), "MSS %d", mss)
		cut()
		await(t, shot, "Capture")
	}
}

// Segments that come one at a time, to somebody who does not read, hold no more
// memory than TCP's buffers.
func TestMemoryOfSparseSegments(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(context.Context, string, string) (net.Conn, error) {
		near, _ := net.Pipe()
		return near, nil
	}})
	g := attachRaw(t, sw, 2)
	heap := func() int {
		runtime.GC()
		runtime.GC() // pools keep until the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	const conns, segments, size = 4, 750, 12
	for c := range conns {
		src, dst := netip.AddrPortFrom(g.addr, uint16(4000+c)), netip.AddrPortFrom(world, 80)
		ack := g.shakeHands(t, src, dst)
		for i := range segments {
			g.sent(t)
			g.send(g.tcp(gatewayMAC, src, dst, uint32(1+size*i), ack, tcpACK, nil, make([]byte, size)))
		}
	}
	require.Equal(t, gatewayMAC, g.resolve(t, gateway))
	require.Less(t, heap()-before, 16<<20)
}

// What one name has, a later connection of another name does not get; its own does.
func TestMACOfAnotherName(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	a, other := attachRaw(t, sw, 2), attachRaw(t, sw, 4)
	require.Equal(t, gatewayMAC, a.resolve(t, gateway))
	replies := other.watch(func(e packet.Ethernet) bool { return isARP(e) && e.Payload[7] == 2 })
	for _, f := range [][]byte{a.whoHas(gateway), a.marker("I am a")} {
		other.send(f)
	}
	eventually(t, func() bool { return drops(t, sw, other)["source"] == 2 }, "dropped")
	require.Equal(t, gatewayMAC, a.resolve(t, gateway), "what is for a goes to a")
	require.EqualValues(t, 1, portOf(sw, a.mac))
	require.Equal(t, gatewayMAC, other.resolve(t, gateway))
	require.Len(t, replies, 1, "the answer to its own question")

	again := attachRaw(t, sw, 2)
	require.Equal(t, gatewayMAC, again.resolve(t, gateway))
	require.EqualValues(t, 3, portOf(sw, a.mac))
	a.send(a.marker("I was first"))
	eventually(t, func() bool { return sw.Snapshot().Drops["source"] == 3 }, "the connection before is the old one")
	again.unplug()
	other.send(a.marker("and now?"))
	eventually(t, func() bool { return portOf(sw, a.mac) == 2 }, "nobody's any more")
}

// portOf returns behind which port an address is.
func portOf(sw *hostswitch.Switch, mac packet.MAC) uint64 {
	for _, e := range sw.Snapshot().CAM {
		if e.MAC == mac.String() {
			return e.Port
		}
	}
	return 0
}

// A guest without a name is known by its peer's address, of which the port is
// another on each connection: it takes its MAC along.
func TestMACOfAGuestThatComesBackOverTCP(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := during(func() { _ = sw.Serve(ctx, ln) })
	defer func() { cancel(); <-served }()
	hello := func(from string) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp4", ln.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		g := &guest{mac: guestMAC, addr: guestAddr(2)}
		f := g.marker("here I am")
		_, err = c.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(len(f))), f...))
		require.NoError(t, err)
	}
	for port := uint64(1); port <= 3; port++ { // the connections before stay open
		hello("127.0.0.1")
		eventually(t, func() bool { return portOf(sw, guestMAC) == port }, "moved to the new connection")
	}
	require.Empty(t, sw.Snapshot().Drops)
	if runtime.GOOS == "darwin" { // where 127.0.0.1 is the only one
		return
	}
	hello("127.0.0.2")
	eventually(t, func() bool { return sw.Snapshot().Drops["source"] == 1 }, "another address is another guest")
	require.EqualValues(t, 3, portOf(sw, guestMAC))
}

// A super-frame for somebody who was never heard would be many frames to many
// guests: it is none.
func TestSuperFramesAreNotFlooded(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	plain := attachRaw(t, sw, 3)
	seen := plain.watch(isAny)
	from := plugOffloader(t, sw, 2, hostswitch.Port{}).agree()
	for i, dst := range []packet.MAC{{2, 9, 9, 9, 9, 9}, packet.Broadcast, {1, 0, 0x5e, 0, 0, 1}} {
		h, f := superFrame(packet.Link{Src: from.mac, Dst: dst}, netip.AddrPortFrom(from.addr, 1), netip.AddrPortFrom(guestAddr(9), 2), 5000)
		from.out.PutOffload(h, f)
		from.out.Put(from.marker("end"))
		nothingBut(t, seen, dst.String())
		require.EqualValues(t, i+1, sw.Snapshot().Drops["offload"])
	}
	// A frame that is one goes to all, as ever.
	single := from.tcp(packet.MAC{2, 9, 9, 9, 9, 9}, netip.AddrPortFrom(from.addr, 1), netip.AddrPortFrom(guestAddr(9), 2), 1, 1, tcpACK, nil, []byte("x"))
	from.out.Put(single)
	require.Equal(t, single, await(t, seen, "flooded"))
}

// Headers count: what is within the MTU without options is dropped where it is not
// with them.
func TestSegmentsThatOptionsMakeTooLong(t *testing.T) {
	for name, tc := range map[string]struct {
		options, size int
		fits          bool
	}{
		"none":           {0, 1460, true},
		"none, too long": {0, 1461, false},
		"12, fits":       {12, 1448, true},
		"12":             {12, 1449, false},
		"40, fits":       {40, 1420, true},
		"40":             {40, 1460, false},
	} {
		t.Run(name, func(t *testing.T) {
			sw := newSwitch(t, hostswitch.Config{})
			plain := attachRaw(t, sw, 3)
			require.Equal(t, gatewayMAC, plain.resolve(t, gateway))
			seen := plain.watch(isAny)
			from := plugOffloader(t, sw, 2, hostswitch.Port{}).agree()
			for i, dst := range []packet.MAC{plain.mac, gatewayMAC} {
				f := from.tcp(dst, netip.AddrPortFrom(from.addr, 1), netip.AddrPortFrom(plain.addr, 2), 1, 1, tcpACK, bytes.Repeat([]byte{1}, tc.options), make([]byte, 5000))
				from.out.PutOffload(frame.Header{
					Flags: frame.NeedsChecksum, GSOType: frame.GSOTCPv4, HdrLen: uint16(54 + tc.options), GSOSize: uint16(tc.size), CsumStart: 34, CsumOffset: 16,
				}, f)
				from.out.Put(from.marker("end"))
				if tc.fits {
					if dst == plain.mac {
						require.Len(t, await(t, seen, "the first segment"), 54+tc.options+tc.size)
					}
					for e := (packet.Ethernet{}); !isMarker(e); {
						e, _ = packet.ParseEthernet(await(t, seen, "the marker"))
					}
					require.Empty(t, sw.Snapshot().Drops)
					continue
				}
				nothingBut(t, seen, name)
				require.Equal(t, map[string]uint64{"long": uint64(i + 1)}, sw.Snapshot().Drops)
			}
		})
	}
}

// A checksum is filled in after the addresses were looked at: it can be nowhere
// else than where TCP has it.
func TestChecksumThatWouldChangeTheHeader(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	victim := attachRaw(t, sw, 3)
	require.Equal(t, gatewayMAC, victim.resolve(t, gateway))
	seen := victim.watch(isAny)
	from := plugOffloader(t, sw, 4, hostswitch.Port{}).agree()
	refused := uint64(0)
	for _, dst := range []packet.MAC{victim.mac, packet.Broadcast, gatewayMAC} {
		for start := range uint16(54) {
			for _, offset := range []uint16{0, 6, 8, 12, 14, 16, 18} {
				if start == 34 && offset == 16 {
					continue
				}
				f := from.tcp(dst, netip.AddrPortFrom(from.addr, 80), netip.AddrPortFrom(victim.addr, 4000), 1, 1, tcpACK, nil, make([]byte, 40))
				from.out.PutOffload(frame.Header{Flags: frame.NeedsChecksum, CsumStart: start, CsumOffset: offset}, f)
				refused++
			}
		}
		from.out.Put(from.marker("end"))
		nothingBut(t, seen, dst.String())
		require.Equal(t, map[string]uint64{"offload": refused}, sw.Snapshot().Drops)
	}
	// Where TCP has it, it is filled in for a guest that cannot do so itself.
	f := from.tcp(victim.mac, netip.AddrPortFrom(from.addr, 80), netip.AddrPortFrom(victim.addr, 4000), 1, 1, tcpACK, nil, []byte("data"))
	h, unfinished := frame.Header{Flags: frame.NeedsChecksum, CsumStart: 34, CsumOffset: 16}, slices.Clone(f)
	words := slices.Concat(f[26:34], []byte{0, packet.ProtoTCP, 0, 24})
	binary.BigEndian.PutUint16(unfinished[50:], packet.Sum(0, words))
	from.out.PutOffload(h, unfinished)
	require.Equal(t, f, await(t, seen, "the frame"))
}

// Nothing but a frame that is taken says that a guest is there.
func TestWhatIsDroppedIsNoSignOfLife(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attachRaw(t, sw, 9)
	badDHCP := packet.AppendUDP(nil, g.toAll(), netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), make([]byte, 300))
	badDHCP[100] ^= 1
	frames := [][]byte{
		ipv6(g, 0, 58), // as MLD is: options before ICMP
		ipv6(g, 58, 134),
		tagged(g.whoHas(gateway), 0x8100),
		packet.AppendARP(nil, g.toAll(), packet.ARP{Op: 1, SenderMAC: g.mac, Sender: gateway, Target: guestAddr(2)}),
		packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(world, 1), netip.AddrPortFrom(hostAlias, 1), nil),
		packet.AppendUDP(nil, g.toAll(), netip.AddrPortFrom(g.addr, 67), netip.MustParseAddrPort("255.255.255.255:68"), nil),
		packet.AppendEcho(nil, g.toGateway(), g.addr, world, packet.Echo{Reply: true}),
		badDHCP,
		ethernet(packet.Link{Src: gatewayMAC, Dst: packet.Broadcast}, markerType, 1),
		ethernet(g.toAll(), packet.EtherOffload, make([]byte, 46)...),
		ethernet(g.toAll(), markerType, make([]byte, 1501)...),
		{1, 2, 3},
	}
	for _, f := range frames {
		g.send(f)
	}
	dropped := func() (n uint64) {
		for _, count := range drops(t, sw, g) {
			n += count
		}
		return n
	}
	eventually(t, func() bool { return dropped() == uint64(len(frames)) }, "all dropped")
	p := sw.Snapshot().Ports[0]
	require.Zero(t, p.FramesIn)
	require.Zero(t, p.BytesIn)
	require.True(t, p.LastFrame.IsZero())
	require.Equal(t, gatewayMAC, g.resolve(t, gateway))
	p = sw.Snapshot().Ports[0]
	require.EqualValues(t, 1, p.FramesIn)
	require.EqualValues(t, 42, p.BytesIn)
	require.False(t, p.LastFrame.IsZero())
}
