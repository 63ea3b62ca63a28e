// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

func hostDial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(withTimeout(t), network, address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

func expose(t testing.TB, sw *hostswitch.Switch, f hostswitch.Forward) hostswitch.Forward {
	t.Helper()
	f, err := sw.Expose(t.Context(), f)
	require.NoError(t, err)
	return f
}

// FAILURES 31: the protocol in any case, and a UDP forward is UDP.
func TestForwardTCPAndUDP(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	g.serve(t, 80, echo)
	pc, err := g.ListenUDP(netip.AddrPortFrom(g.addr, 80))
	require.NoError(t, err)
	echoPackets(t, pc)
	for protocol, kind := range map[string]string{"": "tcp", "tcp": "tcp", "TCP": "tcp", "Tcp4": "tcp", "udp": "udp", "UDP": "udp", "Udp": "udp"} {
		t.Run(protocol, func(t *testing.T) {
			f := expose(t, sw, hostswitch.Forward{Protocol: protocol, Local: "127.0.0.1:0", Remote: ":80"})
			require.Equal(t, kind, f.Protocol)
			require.Equal(t, "192.168.127.2:80", f.Remote, "without an address: the guest of the subnet")
			require.NotEqual(t, "127.0.0.1:0", f.Local, "the port that was bound")
			require.Equal(t, []hostswitch.Forward{f}, sw.Forwards())
			if kind == "tcp" {
				require.Equal(t, "hello", hostExchange(t, f.Local, "hello"))
			} else {
				c := hostDial(t, "udp", f.Local)
				for _, payload := range []string{"hello", "", strings.Repeat("x", 4000)} {
					require.Equal(t, payload, string(datagram(t, c, []byte(payload))))
				}
				_, err := new(net.Dialer).DialContext(t.Context(), "tcp", f.Local)
				require.ErrorIs(t, err, hostswitch.ErrRefused, "not TCP")
			}
			require.NoError(t, sw.Unexpose(strings.ToUpper(protocol), f.Local))
			require.Empty(t, sw.Forwards())
			again := expose(t, sw, f)
			require.Equal(t, f, again, "the same port again")
			require.NoError(t, sw.Unexpose(f.Protocol, f.Local))
		})
	}
}

// FAILURES 30: errors name protocol, address and owner.
func TestForwardErrors(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	have := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	haveUDP := expose(t, sw, hostswitch.Forward{Protocol: "udp", Local: have.Local, Remote: ":80"})
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close() //nolint:errcheck // the end
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	type fwd = hostswitch.Forward
	for name, tc := range map[string]struct {
		ctx   context.Context
		f     fwd
		is    error
		owner string
		says  string
	}{
		"duplicate":          {f: fwd{"TCP", have.Local, ":80"}, is: hostswitch.ErrForwardExists, owner: "the host", says: "expose tcp " + have.Local},
		"duplicate, other":   {f: fwd{"tcp", have.Local, ":81"}, is: hostswitch.ErrForwardExists, owner: "the host", says: "expose tcp " + have.Local},
		"duplicate UDP":      {f: fwd{"udp", haveUDP.Local, ":80"}, is: hostswitch.ErrForwardExists, owner: "the host", says: "expose udp " + have.Local},
		"another program":    {f: fwd{"tcp", taken.Addr().String(), ":80"}, is: hostswitch.ErrForwardExists, owner: "another program on this host", says: "expose tcp " + taken.Addr().String()},
		"protocol":           {f: fwd{"unix", "/tmp/x", ":80"}, is: hostswitch.ErrForwardInvalid, says: "unix"},
		"IPv6 protocol":      {f: fwd{"tcp6", "[::1]:0", ":80"}, is: hostswitch.ErrForwardInvalid, says: "tcp6"},
		"local empty":        {f: fwd{"tcp", "", ":80"}, is: hostswitch.ErrForwardInvalid, says: "local"},
		"local without port": {f: fwd{"tcp", "127.0.0.1", ":80"}, is: hostswitch.ErrForwardInvalid, says: "local"},
		"local port":         {f: fwd{"tcp", "127.0.0.1:65536", ":80"}, is: hostswitch.ErrForwardInvalid, says: "65536"},
		"local port by name": {f: fwd{"tcp", "127.0.0.1:http", ":80"}, is: hostswitch.ErrForwardInvalid, says: "http"},
		"local host by name": {f: fwd{"tcp", "example.com:80", ":80"}, is: hostswitch.ErrForwardInvalid, says: "example.com"},
		"remote empty":       {f: fwd{"tcp", "127.0.0.1:0", ""}, is: hostswitch.ErrForwardInvalid, says: "remote"},
		"remote port 0":      {f: fwd{"tcp", "127.0.0.1:0", ":0"}, is: hostswitch.ErrForwardInvalid, says: "remote"},
		"remote by name":     {f: fwd{"tcp", "127.0.0.1:0", "guest:80"}, is: hostswitch.ErrForwardInvalid, says: "remote"},
		"remote outside":     {f: fwd{"tcp", "127.0.0.1:0", "10.0.0.1:80"}, is: hostswitch.ErrForwardInvalid, says: "192.168.127.0/24"},
		"remote of IPv6":     {f: fwd{"tcp", "127.0.0.1:0", "[::1]:80"}, is: hostswitch.ErrForwardInvalid, says: "remote"},
		"context":            {ctx: ended, f: fwd{"tcp", "127.0.0.1:0", ":80"}, is: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.ctx == nil {
				tc.ctx = t.Context()
			}
			_, err := sw.Expose(tc.ctx, tc.f)
			require.ErrorIs(t, err, tc.is)
			require.ErrorContains(t, err, tc.says)
			var fe *hostswitch.ForwardError
			require.ErrorAs(t, err, &fe)
			require.Equal(t, "expose", fe.Op)
			require.Equal(t, tc.owner, fe.Owner)
			if errors.Is(tc.is, hostswitch.ErrForwardInvalid) {
				require.Equal(t, tc.f.Local, fe.Local, "as it was written")
			}
			require.Len(t, sw.Forwards(), 2, "nothing is left of it")
		})
	}
	for name, tc := range map[string]struct {
		protocol, local string
		is              error
	}{
		"unknown":          {"tcp", "127.0.0.1:1", hostswitch.ErrForwardUnknown},
		"other address":    {"tcp", strings.Replace(have.Local, "127.0.0.1", "0.0.0.0", 1), hostswitch.ErrForwardUnknown},
		"unknown protocol": {"sctp", have.Local, hostswitch.ErrForwardInvalid},
		"nonsense":         {"tcp", "nonsense", hostswitch.ErrForwardInvalid},
	} {
		t.Run("unexpose "+name, func(t *testing.T) {
			err := sw.Unexpose(tc.protocol, tc.local)
			require.ErrorIs(t, err, tc.is)
			require.ErrorContains(t, err, "unexpose "+tc.protocol+" "+tc.local)
		})
	}
}

// 0.0.0.0 and 127.0.0.1 are different forwards; both can be had only where the
// system lets two sockets have one port.
func TestForwardKeys(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	_, port, err := net.SplitHostPort(f.Local)
	require.NoError(t, err)
	_, err = sw.Expose(t.Context(), hostswitch.Forward{Local: "0.0.0.0:" + port, Remote: ":80"})
	if err != nil {
		var fe *hostswitch.ForwardError
		require.ErrorAs(t, err, &fe)
		require.ErrorIs(t, err, hostswitch.ErrForwardExists)
		require.Equal(t, "the host, as "+f.Local, fe.Owner)
	}
	two := expose(t, sw, hostswitch.Forward{Local: "127.0.0.2:" + port, Remote: ":80"})
	require.NoError(t, sw.Unexpose("tcp", f.Local))
	require.Contains(t, sw.Forwards(), two)
	require.NotContains(t, sw.Forwards(), f)
}

// What goes through a forward ends with it, and the port is free.
func TestUnexposeEndsWhatIsUnderWay(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	ended := make(chan error, 1)
	g.serve(t, 80, func(c net.Conn) {
		_, err := io.Copy(c, c)
		ended <- err
	})
	pc, err := g.ListenUDP(netip.AddrPortFrom(g.addr, 80))
	require.NoError(t, err)
	echoPackets(t, pc)

	f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	c := hostDial(t, "tcp", f.Local)
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.NoError(t, err)
	require.Equal(t, 1, sw.Snapshot().Connections)
	require.NoError(t, sw.Unexpose("tcp", f.Local))
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, hostswitch.ErrReset)
	require.ErrorIs(t, await(t, ended, "the guest's end"), hostswitch.ErrReset)
	require.Zero(t, sw.Snapshot().Connections)
	_, err = new(net.Dialer).DialContext(t.Context(), "tcp", f.Local)
	require.ErrorIs(t, err, hostswitch.ErrRefused)

	f = expose(t, sw, hostswitch.Forward{Protocol: "udp", Local: "127.0.0.1:0", Remote: ":80"})
	u := hostDial(t, "udp", f.Local)
	require.Equal(t, "x", string(datagram(t, u, []byte("x"))))
	require.Equal(t, 1, sw.Snapshot().Flows)
	require.NoError(t, sw.Unexpose("udp", f.Local))
	require.Zero(t, sw.Snapshot().Flows)
	f = expose(t, sw, f)
	require.Equal(t, "y", string(datagram(t, u, []byte("y"))), "the same client on the new forward")
}

// The same port again after Close, TCP and UDP, with connections open.
func TestForwardPortsAreFreeAfterClose(t *testing.T) {
	local := freePort(t)
	for range 5 {
		sw := newSwitch(t, hostswitch.Config{Forwards: []hostswitch.Forward{
			{Protocol: "tcp", Local: local, Remote: ":80"}, {Protocol: "udp", Local: local, Remote: ":80"},
		}})
		g := attach(t, sw, 2)
		g.serve(t, 80, echo)
		c := hostDial(t, "tcp", local)
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, sw.Close())
		_, err = c.Read(make([]byte, 1))
		require.Error(t, err)
	}
}

// A client of a forward is told that nobody is there.
func TestForwardToNobody(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	for name, remote := range map[string]string{"no server": ":81", "no guest": "192.168.127.77:80"} {
		t.Run(name, func(t *testing.T) {
			f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: remote})
			c, err := new(net.Dialer).DialContext(withTimeout(t), "tcp", f.Local)
			if err == nil { // else it was reset already
				require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
				_, err = c.Read(make([]byte, 1))
				_ = c.Close()
			}
			require.ErrorIs(t, err, hostswitch.ErrReset)
			require.NoError(t, sw.Unexpose("tcp", f.Local))
		})
	}
	f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":81"})
	g.serve(t, 81, echo)
	require.Equal(t, "x", hostExchange(t, f.Local, "x"), "once somebody is")
}

// FAILURES 25, through a forward.
func TestForwardHalfClose(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	proceed := make(chan struct{})
	ended := make(chan string, 1)
	g.serve(t, 80, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		ended <- string(b)
		<-proceed
		_, _ = io.WriteString(c, "late reply")
	})
	f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	c := hostDial(t, "tcp", f.Local)
	_, err := io.WriteString(c, "request")
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	require.Equal(t, "request", await(t, ended, "the end of the request"))
	close(proceed)
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "late reply", string(b))
}

func TestForwardsConcurrently(t *testing.T) {
	for range 10 {
		sw := newSwitch(t, hostswitch.Config{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					f, err := sw.Expose(context.Background(), hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
					if err == nil {
						_ = sw.Forwards()
						err = sw.Unexpose("tcp", f.Local)
					}
					if err != nil {
						assert.ErrorIs(t, err, hostswitch.ErrClosed)
						return
					}
				}
			})
		}
		eventually(t, func() bool { return len(sw.Forwards()) > 0 }, "a forward")
		require.NoError(t, sw.Close())
		wg.Wait()
		require.Empty(t, sw.Forwards())
	}
}
