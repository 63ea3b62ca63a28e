// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Datagrams that come together are told apart: what is sent on with one system call
// is of one flow, whole and in order, and so is what comes back.
func TestOutboundUDPFlowsDoNotMix(t *testing.T) {
	const flows, rounds, each = 8, 20, 12
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	require.NoError(t, err)
	to := netip.AddrPortFrom(hostAlias, pc.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	type arrival struct {
		from    string
		payload []byte
	}
	arrived := make(chan arrival, flows*each)
	served := during(func() {
		for buf := make([]byte, 64<<10); ; {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			arrived <- arrival{from.String(), slices.Clone(buf[:n])}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	})
	defer func() { _ = pc.Close(); <-served }()

	g := attachRaw(t, newSwitch(t, hostswitch.Config{}), 2)
	require.Equal(t, gatewayMAC, g.resolve(t, gateway))
	answers := g.watch(isProto(packet.ProtoUDP))
	// Long rows of one length, rows that end in a shorter one, and each different.
	payload := func(flow, seq int) []byte {
		n := 2 + []int{0, 40 * (seq % 4 / 3), seq % 7}[flow%3]
		return append([]byte{byte(flow)}, bytes.Repeat([]byte{byte(seq)}, n)...)
	}
	sources := map[string]int{}
	for round := range rounds {
		run := 1 + round%each
		for begin := 0; begin < each; begin += run {
			for flow := range flows {
				for i := begin; i < min(begin+run, each); i++ {
					g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, uint16(4000+flow)), to, payload(flow, round*each+i)))
				}
			}
		}
		var there, back [flows]int
		for range flows * each {
			a := await(t, arrived, "a datagram")
			flow := int(a.payload[0])
			if f, known := sources[a.from]; known {
				require.Equal(t, f, flow, "two flows of one socket")
			}
			sources[a.from] = flow
			require.Equal(t, payload(flow, round*each+there[flow]), a.payload)
			there[flow]++

			ip := ipv4Of(t, await(t, answers, "an answer"))
			udp, ok := packet.ParseUDP(ip)
			require.True(t, ok)
			require.Equal(t, to, netip.AddrPortFrom(ip.Src, udp.SrcPort))
			flow = int(udp.DstPort) - 4000
			require.Equal(t, payload(flow, round*each+back[flow]), udp.Payload)
			back[flow]++
		}
	}
	require.Len(t, sources, flows)
}

// A burst is as many datagrams as it was, empty ones and all.
func TestOutboundUDPBursts(t *testing.T) {
	g := attach(t, newSwitch(t, hostswitch.Config{}), 2)
	c := g.dialUDP(t, hostUDP(t))
	require.Equal(t, "ready", string(datagram(t, c, []byte("ready")))) // the stacks may change the order of what waits for ARP
	buf := make([]byte, 64<<10)
	for range 20 {
		sizes := []int{0, 1, 1, 1, 0, 0, 700, 700, 700, 300, 1472, 1472, 0, 2000, 2000, 5}
		for i, n := range sizes {
			_, err := c.Write(bytes.Repeat([]byte{byte(i)}, n))
			require.NoError(t, err)
		}
		for i, want := range sizes {
			n, err := c.Read(buf)
			require.NoError(t, err)
			require.True(t, bytes.Equal(bytes.Repeat([]byte{byte(i)}, want), buf[:n]), "number %d, of %d bytes: %d bytes of %v", i, want, n, buf[:min(n, 1)])
		}
	}
}

// A flow outlives what the network says of its datagrams.
func TestOutboundUDPGoesOnAfterRefusal(t *testing.T) {
	for range 20 {
		if goesOnAfterRefusal(t) {
			return
		}
	}
	t.Fatal("whatever port is let go, another program takes it")
}

// goesOnAfterRefusal reports false if another program has taken the port.
func goesOnAfterRefusal(t *testing.T) bool {
	deaf := deafUDP(t)
	local := deaf.LocalAddr()
	var dials atomic.Int32
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	c := attach(t, sw, 2).dialUDP(t, netip.AddrPortFrom(hostAlias, local.(*net.UDPAddr).AddrPort().Port()))
	for range 3 {
		ask := func() (refused bool) {
			for range 5 {
				_, err := c.Write([]byte("anybody?"))
				require.True(t, err == nil || errors.Is(err, hostswitch.ErrRefused), "%v", err)
				refused = refused || err != nil
			}
			return refused
		}
		if runtime.GOOS == "windows" {
			// Package net has it not say so there, https://go.dev/issue/5834; and wine's
			// socket neither sends nor receives any more when it was refused some times.
			ask()
			continue
		}
		eventually(t, func() bool { // the kernel leaves out refusals when it deems them too many
			refused := ask()
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err := c.Read(make([]byte, 1))
			return refused || errors.Is(err, hostswitch.ErrRefused)
		}, "a refusal")
	}
	require.NoError(t, deaf.Close())
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp4", local.String())
	if err != nil {
		return false
	}
	echoPackets(t, pc)
	buf := make([]byte, 100)
	eventually(t, func() bool { // refusals of before may still be on their way
		_, _ = c.Write([]byte("again"))
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Read(buf)
		return err == nil && string(buf[:n]) == "again"
	}, "an answer")
	require.EqualValues(t, 1, dials.Load(), "one flow")
	return true
}

// What of a flow the stack is not asked about goes on only if it is sound; the stack
// has the rest.
func TestOutboundUDPIsVerified(t *testing.T) {
	near, far := net.Pipe()
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(context.Context, string, string) (net.Conn, error) { return near, nil }})
	got := make(chan []byte, 100)
	read := during(func() {
		for buf := make([]byte, 4096); ; {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			got <- slices.Clone(buf[:n])
		}
	})
	defer func() { _ = far.Close(); <-read }()
	g := attachRaw(t, sw, 2)
	datagram := func(payload string) []byte {
		return packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 5000), netip.AddrPortFrom(world, 9999), []byte(payload))
	}
	header := func(f []byte, change func(ip []byte)) []byte {
		ip := f[packet.EthernetLen:]
		change(ip)
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], packet.Checksum(0, ip[:int(ip[0]&15)*4]))
		return f
	}
	g.send(datagram("the first"))
	require.Equal(t, "the first", string(await(t, got, "the first")))
	for name, c := range map[string]struct {
		change func(f []byte) []byte
		want   bool
	}{
		"as it is":               {func(f []byte) []byte { return f }, true},
		"padded":                 {func(f []byte) []byte { return append(f, 0, 0, 0) }, true},
		"without a checksum":     {func(f []byte) []byte { copy(f[40:], []byte{0, 0}); return f }, true},
		"with a wrong checksum":  {func(f []byte) []byte { f[40] ^= 1; return f }, false},
		"changed":                {func(f []byte) []byte { f[len(f)-1] ^= 1; return f }, false},
		"longer than its packet": {func(f []byte) []byte { f[39]++; return f }, false},
		"shorter than a header":  {func(f []byte) []byte { f[39] = 7; return f }, false},
		"with a wrong header":    {func(f []byte) []byte { f[24] ^= 1; return f }, false},
		"with an option": {func(f []byte) []byte {
			return header(slices.Insert(f, 34, 1, 1, 1, 0), func(ip []byte) { ip[0]++; ip[3] += 4 })
		}, true},
		"in the name of another":     {func(f []byte) []byte { return header(f, func(ip []byte) { ip[15] = 1 }) }, false},
		"from outside of the subnet": {func(f []byte) []byte { return header(f, func(ip []byte) { ip[14] = 0 }) }, false},
		"a fragment":                 {func(f []byte) []byte { return header(f, func(ip []byte) { ip[6] = 0x20 }) }, false},
	} {
		g.send(c.change(datagram(name)))
		g.send(datagram("the next"))
		if c.want {
			require.Equal(t, name, string(await(t, got, name)))
		}
		require.Equal(t, "the next", string(await(t, got, "what follows")), name)
	}
	require.Equal(t, 1, sw.Snapshot().Flows)
}

// A socket that does not take datagrams costs those that do not fit its queue; they
// are counted, and the others keep their order.
func TestOutboundUDPQueueIsBounded(t *testing.T) {
	const total, size = 2000, 1000
	near, far := net.Pipe()
	defer far.Close() //nolint:errcheck // the end
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(context.Context, string, string) (net.Conn, error) { return near, nil }})
	g := attachRaw(t, sw, 2)
	for i := range total {
		g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 5000), netip.AddrPortFrom(world, 9999),
			binary.BigEndian.AppendUint32(make([]byte, size-4), uint32(i))))
	}
	eventually(t, func() bool { return sw.Snapshot().Ports[0].FramesIn == total }, "the flood")
	dropped := int(sw.Snapshot().Drops["datagram"])
	require.Greater(t, dropped, total-2*(256<<10)/size-1)
	require.NoError(t, far.SetReadDeadline(time.Now().Add(patience)))
	last := -1
	for range total - dropped {
		buf := make([]byte, 2*size)
		n, err := far.Read(buf)
		require.NoError(t, err)
		require.Equal(t, size, n)
		seq := int(binary.BigEndian.Uint32(buf[size-4:]))
		require.Greater(t, seq, last)
		last = seq
	}
}

// unwilling takes no datagram.
type unwilling struct{ net.Conn }

func (unwilling) Write([]byte) (int, error) { return 0, errors.New("no") }

// However datagrams come to be sent by no socket, they are counted.
func TestOutboundUDPLossIsCounted(t *testing.T) {
	const each = 3
	to := netip.AddrPortFrom(hostAlias, 9999)
	for name, c := range map[string]struct {
		dial func(context.Context) (net.Conn, error)
		then func(*testing.T, *hostswitch.Switch)
	}{
		"not dialled": {dial: func(context.Context) (net.Conn, error) { return nil, errors.New("no") }},
		"not written": {dial: func(context.Context) (net.Conn, error) {
			near, _ := net.Pipe() // its reads last until it is closed
			return unwilling{near}, nil
		}},
		"given way": {
			dial: func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
			then: func(t *testing.T, sw *hostswitch.Switch) {
				_, err := sw.ListenPacket("udp", to.String())
				require.NoError(t, err)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan struct{})
			sw := newSwitch(t, hostswitch.Config{DialOutbound: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-sent
				return c.dial(ctx)
			}})
			g := attachRaw(t, sw, 2)
			for range each {
				g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 5000), to, []byte("x")))
			}
			eventually(t, func() bool { return sw.Snapshot().Ports[0].FramesIn == each }, "the datagrams")
			close(sent)
			if c.then != nil {
				c.then(t, sw)
			}
			eventually(t, func() bool { return sw.Snapshot().Drops["datagram"] == each }, "all that were lost")
		})
	}
}

// Whoever listens inside has what is sent there, though it went out before, and no
// longer than that.
func TestListenPacketWhereDatagramsWentOut(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	server := hostUDP(t)
	c := attach(t, sw, 2).dialUDP(t, server)
	require.Equal(t, "out", string(datagram(t, c, []byte("out"))))
	pc, err := sw.ListenPacket("udp", server.String())
	require.NoError(t, err)
	_, err = c.Write([]byte("in"))
	require.NoError(t, err)
	require.NoError(t, pc.SetDeadline(time.Now().Add(patience)))
	buf := make([]byte, 10)
	n, _, err := pc.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, "in", string(buf[:n]))
	require.NoError(t, pc.Close())
	require.Equal(t, "out again", string(datagram(t, c, []byte("out again"))))
}

// However many addresses a guest gives itself, it is one guest, and has its share of the
// flows. Others keep theirs.
func TestAGuestOfManyAddressesIsOneGuest(t *testing.T) {
	const addresses, each = 4, 700
	var modest, next atomic.Int32
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(ctx context.Context, network, address string) (net.Conn, error) {
		switch address {
		case "127.0.0.1:9":
			modest.Add(1)
		case "127.0.0.1:10":
			next.Add(1)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	g, greedy := attachRaw(t, sw, 2), attachRaw(t, sw, 3)
	send := func(g *guest, from netip.Addr, port uint16) {
		g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(from, port), netip.AddrPortFrom(hostAlias, 9+port-4000), []byte("x")))
	}
	send(g, g.addr, 4000)
	eventually(t, func() bool { return modest.Load() == 1 }, "the flow of who has one")
	for i := range uint16(addresses * each) {
		send(greedy, guestAddr(100+byte(i%addresses)), 5000+i)
	}
	eventually(t, func() bool { return sw.Snapshot().Ports[1].FramesIn == addresses*each }, "the others")
	require.Equal(t, 1+1024, sw.Snapshot().Flows)
	again := attachRaw(t, sw, 3) // nor does it help to come again
	for i := range uint16(each) {
		send(again, greedy.addr, 5000+addresses*each+i)
	}
	eventually(t, func() bool {
		ports := sw.Snapshot().Ports
		return ports[len(ports)-1].FramesIn == each
	}, "those of its next connection")
	require.Equal(t, 1+1024, sw.Snapshot().Flows)
	send(g, g.addr, 4000)
	send(g, g.addr, 4001) // behind it, a flow of its own
	eventually(t, func() bool { return next.Load() == 1 }, "what came after it")
	require.EqualValues(t, 1, modest.Load(), "it is of the same flow")
}
