// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

func refuseDial(context.Context, string, string) (net.Conn, error) { return nil, hostswitch.ErrRefused }

// A guest asks for a connection and half-closes; the answer comes after that.
func TestOutboundTCP(t *testing.T) {
	g := attach(t, newSwitch(t, hostswitch.Config{}), 2)
	from := make(chan net.Addr, 1)
	server := hostTCP(t, func(c net.Conn) {
		from <- c.RemoteAddr()
		request, err := io.ReadAll(c)
		if err == nil {
			_, _ = io.WriteString(c, strings.ToUpper(string(request)))
		}
	})
	require.Equal(t, "HELLO", exchange(t, g.dial(t, server), "hello"))
	require.True(t, (<-from).(*net.TCPAddr).IP.IsLoopback())
}

// A port that nobody listens on is refused, never accepted and then closed.
func TestOutboundTCPRefused(t *testing.T) {
	g := attach(t, newSwitch(t, hostswitch.Config{}), 2)
	closed := netip.AddrPortFrom(hostAlias, netip.MustParseAddrPort(freePort(t)).Port())
	_, err := g.DialTCP(withTimeout(t), netip.AddrPort{}, closed)
	require.ErrorIs(t, err, hostswitch.ErrRefused)
	_, err = g.DialTCP(withTimeout(t), netip.AddrPort{}, netip.AddrPortFrom(gateway, 4711))
	require.ErrorIs(t, err, hostswitch.ErrRefused, "a port of the gateway that serves nothing")
}

// What a guest must not reach is not dialled, whatever NAT says for others.
func TestForbiddenRanges(t *testing.T) {
	for name, addresses := range map[string][]string{
		"0/8 this network":       {"0.0.0.0", "0.0.0.1", "0.255.255.255"},
		"127/8 loopback":         {"127.0.0.0", "127.0.0.1", "127.255.255.255"},
		"169.254/16 link-local":  {"169.254.0.0", "169.254.169.254", "169.254.255.255"},
		"224/4 multicast":        {"224.0.0.1", "239.255.255.255"},
		"240/4 reserved":         {"240.0.0.0", "240.0.0.1", "255.255.255.254"},
		"broadcast":              {"255.255.255.255"},
		"unassigned, own subnet": {"192.168.127.0", "192.168.127.77", "192.168.127.253", "192.168.127.255"},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var dialled []string
			sw := newSwitch(t, hostswitch.Config{DialOutbound: func(_ context.Context, network, address string) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				dialled = append(dialled, network+" "+address)
				return nil, hostswitch.ErrRefused
			}})
			g := attachRaw(t, sw, 2)
			require.Equal(t, gatewayMAC, g.resolve(t, gateway))
			segments := g.watch(isProto(packet.ProtoTCP))
			for _, a := range addresses {
				to := netip.AddrPortFrom(netip.MustParseAddr(a), 80)
				g.send(g.syn(netip.AddrPortFrom(g.addr, 1000), to))
				g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 1000), to, []byte("x")))
			}
			// The last is one that may be dialled.
			g.send(packet.AppendUDP(nil, g.toGateway(), netip.AddrPortFrom(g.addr, 1000), netip.AddrPortFrom(hostAlias, 80), []byte("x")))
			g.send(g.syn(netip.AddrPortFrom(g.addr, 1000), netip.AddrPortFrom(hostAlias, 80)))
			for last := false; !last; {
				ip := ipv4Of(t, await(t, segments, "the refusal"))
				require.EqualValues(t, 4, ip.Payload[13]&7, "flags: nothing but a reset")
				last = ip.Src == hostAlias
			}
			require.NoError(t, sw.Close()) // waits for every dial
			require.ElementsMatch(t, []string{"tcp 127.0.0.1:80", "udp 127.0.0.1:80"}, dialled)
		})
	}
}

// NAT is asked before the subnet is: other addresses can be translated too.
func TestNAT(t *testing.T) {
	dialled := make(chan string, 1)
	sw := newSwitch(t, hostswitch.Config{
		NAT: map[netip.Addr]netip.Addr{guestAddr(200): netip.MustParseAddr("127.0.0.2"), world: netip.MustParseAddr("203.0.113.9")},
		DialOutbound: func(_ context.Context, network, address string) (net.Conn, error) {
			dialled <- network + " " + address
			return nil, hostswitch.ErrRefused
		},
	})
	g := attach(t, sw, 2)
	for to, want := range map[netip.Addr]string{
		guestAddr(200):                        "tcp 127.0.0.2:80",
		world:                                 "tcp 203.0.113.9:80",
		netip.MustParseAddr("198.51.100.200"): "tcp 198.51.100.200:80",
	} {
		_, err := g.DialTCP(withTimeout(t), netip.AddrPort{}, netip.AddrPortFrom(to, 80))
		require.ErrorIs(t, err, hostswitch.ErrRefused)
		require.Equal(t, want, <-dialled)
	}
}

// Any error of the hook refuses; what the network says is passed on, and nothing
// has to be restarted once it says otherwise (FAILURES 21).
func TestDialOutboundErrors(t *testing.T) {
	var fail atomic.Pointer[error]
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := fail.Load(); err != nil {
			return nil, *err
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	g := attach(t, sw, 2)
	server := hostTCP(t, echo)
	for name, tc := range map[string]struct{ err, want error }{
		"denied":              {errors.New("policy says no"), hostswitch.ErrRefused},
		"refused":             {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", hostswitch.ErrRefused)}, hostswitch.ErrRefused},
		"network unreachable": {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", hostswitch.ErrNetUnreachable)}, hostswitch.ErrNetUnreachable},
		"host unreachable":    {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", hostswitch.ErrHostUnreachable)}, hostswitch.ErrHostUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			fail.Store(&tc.err)
			for range 10 {
				_, err := g.DialTCP(withTimeout(t), netip.AddrPort{}, server)
				require.ErrorIs(t, err, tc.want)
			}
			fail.Store(nil)
			require.Equal(t, "x", exchange(t, g.dial(t, server), "x"))
		})
	}
}

// FAILURES 19: dials that hang hold up no other, nor Close.
func TestBlackholedDials(t *testing.T) {
	var hung atomic.Int64
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, world.String()) {
			hung.Add(1)
			defer hung.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	g := attach(t, sw, 2)
	server := hostTCP(t, echo)
	for i := range 200 {
		g.send(g.syn(netip.AddrPortFrom(g.addr, uint16(1000+i)), netip.AddrPortFrom(world, 80)))
	}
	eventually(t, func() bool { return hung.Load() == 200 }, "all of them under way")
	require.Equal(t, "x", exchange(t, g.dial(t, server), "x"))
	require.EqualValues(t, 200, hung.Load())
	await(t, during(func() { require.NoError(t, sw.Close()) }), "Close")
	require.Zero(t, hung.Load())
}

// FAILURES 20: neither does a flood of handshakes that nobody finishes.
func TestSYNFlood(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	bad, g := attachRaw(t, sw, 9), attach(t, sw, 2)
	var served atomic.Int64
	server := hostTCP(t, func(c net.Conn) { served.Add(1); echo(c) })
	require.Equal(t, gatewayMAC, bad.resolve(t, gateway))
	answers := bad.watch(isProto(packet.ProtoTCP))
	for i := range 1000 {
		bad.send(bad.syn(netip.AddrPortFrom(bad.addr, uint16(1000+i)), server))
	}
	await(t, answers, "the first of them is half open")
	require.Equal(t, "x", exchange(t, g.dial(t, server), "x"))
	eventually(t, func() bool { return served.Load() >= 512 }, "the flood has come that far")
	require.Equal(t, "x", exchange(t, g.dial(t, server), "x"))
}

// FAILURES 25: the end of one direction is not the end of the other.
func TestHalfCloseLateReply(t *testing.T) {
	g := attach(t, newSwitch(t, hostswitch.Config{}), 2)
	for name, first := range map[string]bool{"the guest ends first": true, "the host ends first": false} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex // the turn of the one that is late
			mu.Lock()
			got := make(chan string, 1)
			early := func(c net.Conn) {
				_, _ = io.WriteString(c, "request")
				_ = c.(interface{ CloseWrite() error }).CloseWrite()
				answer, err := io.ReadAll(c)
				got <- string(answer) + errorText(err)
			}
			ended := make(chan string, 1)
			late := func(c net.Conn) {
				request, err := io.ReadAll(c)
				ended <- string(request) + errorText(err)
				mu.Lock()
				_, _ = io.WriteString(c, "late reply")
			}
			atGuest, atHost := early, late
			if !first {
				atGuest, atHost = late, early
			}
			c := g.dial(t, hostTCP(t, atHost))
			done := during(func() { atGuest(c); _ = c.Close() })
			require.Equal(t, "request", await(t, ended, "the end of the request"))
			require.Empty(t, got)
			mu.Unlock()
			require.Equal(t, "late reply", await(t, got, "the reply"))
			<-done
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return " (" + err.Error() + ")"
}

// A connection that broke off must not look complete to the other side.
func TestResetsCross(t *testing.T) {
	g := attach(t, newSwitch(t, hostswitch.Config{}), 2)
	flood := func(c net.Conn) error {
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	}
	cut := func(c net.Conn, after int64) {
		_, _ = io.CopyN(io.Discard, c, after)
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
			return
		}
		_ = c.(interface{ Abort() error }).Abort()
	}
	for _, busy := range []bool{false, true} {
		name := map[bool]string{false: "idle", true: "busy"}[busy]
		// suffer reports how a connection ended for the one who did not end it:
		// the system may tell the writer instead of the reader.
		suffer := func(c net.Conn, ended chan<- error) {
			_, _ = c.Write([]byte{1})
			var writing sync.WaitGroup
			var werr error
			if busy {
				writing.Go(func() { werr = flood(c) })
			}
			_, err := io.Copy(io.Discard, c)
			if err == nil {
				writing.Wait()
				err = werr
			}
			_ = c.Close()
			writing.Wait()
			ended <- err
		}
		after := int64(1)
		if busy {
			after = 1 << 18
		}
		t.Run("host, "+name, func(t *testing.T) {
			for range 20 {
				ended := make(chan error, 1)
				c := g.dial(t, hostTCP(t, func(c net.Conn) { cut(c, after) }))
				done := during(func() { suffer(c, ended) })
				require.ErrorIs(t, await(t, ended, "the reset"), hostswitch.ErrReset)
				<-done
			}
		})
		t.Run("guest, "+name, func(t *testing.T) {
			for range 20 {
				ended := make(chan error, 1)
				c := g.dial(t, hostTCP(t, func(c net.Conn) { suffer(c, ended) }))
				cut(c, after)
				require.ErrorIs(t, await(t, ended, "the reset"), hostswitch.ErrReset)
			}
		})
	}
}

// A hook may return what has no half-close.
func TestOutboundWithoutCloseWrite(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{DialOutbound: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { // ends with the pipe
			defer far.Close() //nolint:errcheck // the end
			b := make([]byte, 7)
			if _, err := io.ReadFull(far, b); err == nil {
				_, _ = io.WriteString(far, "answer to "+string(b))
			}
		}()
		return near, nil
	}})
	g := attach(t, sw, 2)
	require.Equal(t, "answer to request", exchange(t, g.dial(t, netip.AddrPortFrom(world, 80)), "request"))
	eventually(t, func() bool { return sw.Snapshot().Connections == 0 }, "the end of the connection")
}

// FAILURES 26: connections that are over are gone, on both sides.
func TestShortConnectionsLeaveNothing(t *testing.T) {
	const total, atOnce = 10_000, 16
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	server := hostTCP(t, func(c net.Conn) { _, _ = io.WriteString(c, "bye") })
	first, err := g.DialTCP(withTimeout(t), netip.AddrPortFrom(g.addr, 20_000), server)
	require.NoError(t, err)
	require.Equal(t, "bye", exchange(t, first, "")) // everything runs
	eventually(t, func() bool { return sw.Snapshot().Connections == 0 }, "its end")
	before := measure()
	var wg sync.WaitGroup
	var failed, port atomic.Int64
	port.Store(20_000)
	for range atOnce {
		wg.Go(func() {
			for range total / atOnce {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				// Ports in turn, as kernels choose them: gVisor's are random, and
				// one that comes again too soon has to ask twice.
				c, err := g.DialTCP(ctx, netip.AddrPortFrom(g.addr, uint16(port.Add(1))), server)
				cancel()
				if err != nil {
					failed.Add(1)
					continue
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
					failed.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	require.Zero(t, failed.Load())
	settles(t, before)
	require.Zero(t, sw.Snapshot().Connections)
}
