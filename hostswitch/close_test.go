// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Close with everything under way that can be: it returns, for all who call it,
// with nothing left.
func TestCloseWithEverythingUnderWay(t *testing.T) {
	for range 5 {
		hung := make(chan struct{}, 1024)
		sw := newSwitch(t, hostswitch.Config{
			DialOutbound: func(ctx context.Context, network, address string) (net.Conn, error) {
				if netip.MustParseAddrPort(address).Addr() == world {
					hung <- struct{}{}
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return new(net.Dialer).DialContext(ctx, network, address)
			},
			OnEvent: func(hostswitch.Event) {},
		})
		g, idle, raw := attach(t, sw, 2), attachRaw(t, sw, 3), attachRaw(t, sw, 9)
		near, stalled := start(context.Background(), sw) // reads nothing
		server := hostTCP(t, echo)
		endless := hostTCP(t, func(c net.Conn) {
			for b := make([]byte, 1<<16); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})

		open, source := g.dial(t, server), g.dial(t, endless) // an idle connection and a busy one
		busy := during(func() { _, _ = io.Copy(io.Discard, source) })
		udp := g.dialUDP(t, hostUDP(t))
		require.Equal(t, "x", string(datagram(t, udp, []byte("x"))))
		require.Equal(t, gatewayMAC, raw.resolve(t, gateway))
		for i := range uint16(50) {
			raw.send(raw.syn(netip.AddrPortFrom(raw.addr, 1000+i), netip.AddrPortFrom(world, 80))) // hung dials
			raw.send(raw.syn(netip.AddrPortFrom(raw.addr, 2000+i), server))                        // half-open handshakes
			raw.send(packet.AppendUDP(nil, raw.toGateway(), netip.AddrPortFrom(raw.addr, 3000+i), netip.AddrPortFrom(world, 80), []byte("x")))
		}
		for range 100 {
			await(t, hung, "dials that hang")
		}
		g.serve(t, 80, echo)
		f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
		forwarded := hostDial(t, "tcp", f.Local)
		_, err := forwarded.Write([]byte("x"))
		require.NoError(t, err)
		_, err = forwarded.Read(make([]byte, 1))
		require.NoError(t, err)
		nobody := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: "192.168.127.77:80"})
		_ = hostDial(t, "tcp", nobody.Local) // is being dialled inside
		captured := make(chan error, 1)
		go func() { captured <- sw.Capture(context.Background(), io.Discard) }()

		var closers sync.WaitGroup
		for range 4 {
			closers.Go(func() { _ = sw.Close() })
		}
		await(t, during(closers.Wait), "Close")
		require.NoError(t, sw.Close(), "again")
		for _, attached := range []<-chan error{g.attached, idle.attached, raw.attached, stalled} {
			require.ErrorIs(t, await(t, attached, "Attach"), hostswitch.ErrClosed)
		}
		requireClosed(t, near)
		require.Zero(t, sw.Snapshot().Connections)
		require.Zero(t, sw.Snapshot().Flows)
		_, err = new(net.Dialer).DialContext(t.Context(), "tcp", f.Local)
		require.Error(t, err, "the forward's port")
		require.ErrorIs(t, await(t, captured, "Capture"), hostswitch.ErrClosed)
		g.unplug()
		_ = open.Close()
		await(t, busy, "the busy connection")
	}
}

// After Close every call says so.
func TestMethodsAfterClose(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{Forwards: []hostswitch.Forward{{Local: "127.0.0.1:0", Remote: ":80"}}})
	have := sw.Forwards()[0]
	require.NoError(t, sw.Close())
	f := hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"}
	for name, call := range map[string]func() error{
		"Attach": func() error {
			_, far := net.Pipe()
			return sw.Attach(t.Context(), far, hostswitch.Port{})
		},
		"Serve": func() error {
			ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			return sw.Serve(t.Context(), ln)
		},
		"DialContext tcp": func() error { _, err := sw.DialContext(t.Context(), "tcp", "192.168.127.2:80"); return err },
		"DialContext udp": func() error { _, err := sw.DialContext(t.Context(), "udp", "192.168.127.2:80"); return err },
		"Listen":          func() error { _, err := sw.Listen("tcp", ":0"); return err },
		"ListenPacket":    func() error { _, err := sw.ListenPacket("udp", ":0"); return err },
		"Expose":          func() error { _, err := sw.Expose(t.Context(), f); return err },
		"Unexpose":        func() error { return sw.Unexpose(have.Protocol, have.Local) },
		"Capture":         func() error { return sw.Capture(t.Context(), io.Discard) },
	} {
		t.Run(name, func(t *testing.T) {
			err := call()
			require.ErrorIs(t, err, hostswitch.ErrClosed)
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
	require.Empty(t, sw.Forwards())
	snap := sw.Snapshot()
	require.Empty(t, snap.Ports)
	require.Empty(t, snap.CAM)
	require.NotNil(t, sw.Handler())
}

// Close does not wait for a New or an Attach that begins beside it.
func TestCloseRacesAttach(t *testing.T) {
	for range 50 {
		sw := newSwitch(t, hostswitch.Config{})
		near, done := start(context.Background(), sw)
		require.NoError(t, sw.Close())
		require.ErrorIs(t, await(t, done, "Attach"), hostswitch.ErrClosed)
		requireClosed(t, near)
	}
}
