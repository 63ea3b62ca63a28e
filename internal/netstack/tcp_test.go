// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
)

// connect returns both ends of a connection that the guest has opened.
func (p *pair) connect(t testing.TB) (guest, router *netstack.Conn) {
	t.Helper()
	ln, err := p.router.ListenTCP(netip.AddrPortFrom(routerAddr, 0))
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	to := ln.Addr().(*net.TCPAddr).AddrPort()
	guest, err = p.guest.DialTCP(withTimeout(t), netip.AddrPort{}, to)
	require.NoError(t, err)
	c, err := ln.Accept()
	require.NoError(t, err)
	return guest, c.(*netstack.Conn)
}

func TestConnIsANetConnInBothRoles(t *testing.T) {
	for name, order := range map[string]func(a, b net.Conn) (net.Conn, net.Conn){
		"dialler first":  func(a, b net.Conn) (net.Conn, net.Conn) { return a, b },
		"listener first": func(a, b net.Conn) (net.Conn, net.Conn) { return b, a },
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				p := newPair(t, 1500)
				g, r := p.connect(t)
				c1, c2 := order(g, r)
				return c1, c2, func() {
					_, _ = g.Close(), r.Close()
					p.guest.Close()
					p.router.Close()
					p.unplug()
				}, nil
			})
		})
	}
}

func TestAddressesOfAConnectionStayAfterClose(t *testing.T) {
	g, r := newPair(t, 1500).connect(t)
	require.NoError(t, g.Close())
	require.Equal(t, guestAddr, g.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
	require.Equal(t, g.LocalAddr().String(), r.RemoteAddr().String())
	require.Equal(t, g.RemoteAddr().String(), r.LocalAddr().String())
}

// FAILURES 25.
func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	for name, swap := range map[string]bool{"dialler closes": false, "listener closes": true} {
		t.Run(name, func(t *testing.T) {
			a, b := newPair(t, 1500).connect(t)
			if swap {
				a, b = b, a
			}
			request := bytes.Repeat([]byte("request "), 1<<15)
			done := during(func() {
				_, _ = a.Write(request)
				_ = a.CloseWrite()
			})
			got, err := io.ReadAll(b)
			require.NoError(t, err)
			require.Equal(t, request, got)
			await(t, done, "Write")

			_, err = a.Write([]byte("x"))
			require.ErrorIs(t, err, netstack.ErrPipe)
			_, err = b.Write([]byte("late reply"))
			require.NoError(t, err)
			require.NoError(t, b.Close())
			got, err = io.ReadAll(a)
			require.NoError(t, err)
			require.Equal(t, "late reply", string(got))
		})
	}
}

func TestWhatWasWrittenBeforeCloseArrives(t *testing.T) {
	g, r := newPair(t, 1500).connect(t)
	sent := bytes.Repeat([]byte{7}, 300_000)
	done := during(func() {
		_, _ = g.Write(sent)
		_ = g.Close()
	})
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, len(sent), len(got))
	await(t, done, "Close")
}

func TestAbortIsSeenAsReset(t *testing.T) {
	g, r := newPair(t, 1500).connect(t)
	require.NoError(t, g.Abort())
	_, err := r.Read(make([]byte, 1))
	require.ErrorIs(t, err, netstack.ErrReset)
	_, err = g.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, g.Abort(), "again")
	require.NoError(t, g.Close(), "after it")
}

func TestABrokenConnSaysSoThoughNobodyReads(t *testing.T) {
	finish := func(t *testing.T, from, to *netstack.Conn) {
		require.NoError(t, from.CloseWrite())
		_, err := to.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	for name, breakIt := range map[string]func(*testing.T, *pair, *netstack.Conn, *netstack.Conn){
		"reset by the peer": func(_ *testing.T, _ *pair, g, _ *netstack.Conn) { _ = g.Abort() },
		"reset after the peer finished": func(t *testing.T, _ *pair, g, r *netstack.Conn) {
			finish(t, g, r)
			_ = g.Abort()
		},
		"reset after this end finished": func(t *testing.T, _ *pair, g, r *netstack.Conn) {
			finish(t, r, g)
			_ = g.Abort()
		},
		"stack closed": func(_ *testing.T, p *pair, _, _ *netstack.Conn) { p.router.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 1500)
			g, r := p.connect(t)
			breakIt(t, p, g, r)
			await(t, r.Broken().Done(), "Broken")
		})
	}
}

func TestAConnThatEndsInOrderIsNotBroken(t *testing.T) {
	for name, order := range map[string]bool{"guest first": false, "router first": true} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 1500)
			first, second := p.connect(t)
			if order {
				first, second = second, first
			}
			require.NoError(t, first.CloseWrite())
			_, err := second.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			require.False(t, isDone(second.Broken().Done()), "half closed")
			_, err = second.Write([]byte("late reply"))
			require.NoError(t, err)
			require.NoError(t, second.CloseWrite())
			_, err = io.ReadAll(first)
			require.NoError(t, err)
			// The last acknowledgement ends second's: this is how to see that it came.
			require.Eventually(t, func() bool { return errors.Is(second.CloseRead(), netstack.ErrNotConnected) }, patience, time.Millisecond)
			require.NoError(t, first.Close())
			require.NoError(t, second.Close())
			p.close()
			require.False(t, isDone(first.Broken().Done()))
			require.False(t, isDone(second.Broken().Done()))
		})
	}
}

func TestAnOwnAbortIsNotBroken(t *testing.T) {
	g, _ := newPair(t, 1500).connect(t)
	require.NoError(t, g.Abort())
	require.False(t, isDone(g.Broken().Done()))
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestClosedConnSaysSo(t *testing.T) {
	g, _ := newPair(t, 1500).connect(t)
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
	_, err := g.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = g.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, g.CloseWrite(), net.ErrClosed)
	require.ErrorIs(t, g.CloseRead(), net.ErrClosed)
	require.ErrorIs(t, g.SetDeadline(time.Now()), net.ErrClosed)
}

func TestCloseEndsWhatIsBlocked(t *testing.T) {
	p := newPair(t, 1500)
	for name, block := range map[string]func() (func() error, io.Closer){
		"read": func() (func() error, io.Closer) {
			g, _ := p.connect(t)
			return func() error { _, err := g.Read(make([]byte, 1)); return err }, g
		},
		"write": func() (func() error, io.Closer) {
			g, _ := p.connect(t)
			return func() error {
				for {
					if _, err := g.Write(make([]byte, 1<<16)); err != nil {
						return err
					}
				}
			}, g
		},
		"accept": func() (func() error, io.Closer) {
			ln, err := p.router.ListenTCP(netip.AddrPortFrom(routerAddr, 0))
			require.NoError(t, err)
			return func() error { _, err := ln.Accept(); return err }, ln
		},
		"readfrom": func() (func() error, io.Closer) {
			pc, err := p.router.ListenUDP(netip.AddrPortFrom(routerAddr, 0))
			require.NoError(t, err)
			return func() error { _, _, err := pc.ReadFrom(make([]byte, 1)); return err }, pc
		},
	} {
		t.Run(name, func(t *testing.T) {
			blocked, c := block()
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					if err := blocked(); err == nil || !isClosed(err) {
						t.Errorf("blocked call: %v", err)
					}
				})
				all.Go(func() {
					if err := c.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
			}
			await(t, during(all.Wait), "blocked calls")
		})
	}
}

func TestListenerHonoursItsDeadline(t *testing.T) {
	ln, err := newPair(t, 1500).router.ListenTCP(netip.AddrPortFrom(routerAddr, 0))
	require.NoError(t, err)
	require.NoError(t, ln.SetDeadline(time.Now().Add(10*time.Millisecond)))
	_, err = ln.Accept()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, ln.Close())
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestAPortIsFreeAgainAfterClose(t *testing.T) {
	p := newPair(t, 1500)
	at := netip.AddrPortFrom(routerAddr, 8080)
	for range 3 {
		ln, err := p.router.ListenTCP(at)
		require.NoError(t, err)
		_, err = p.router.ListenTCP(at)
		require.ErrorIs(t, err, netstack.ErrAddrInUse)
		c, err := p.guest.DialTCP(withTimeout(t), netip.AddrPort{}, at)
		require.NoError(t, err)
		require.NoError(t, ln.Close())
		_ = c.Close()
	}
}

// A guest may use its port again at once although the far end closed first.
func TestATupleIsReusableThoughTheRouterClosedFirst(t *testing.T) {
	p := newPair(t, 1500)
	p.router.HandleTCP(func(_ context.Context, r *netstack.Request) {
		if c, err := r.Accept(); err == nil {
			_ = c.Close()
		}
	})
	from, to := netip.AddrPortFrom(guestAddr, 40000), netip.AddrPortFrom(worldAddr, 80)
	for range 2 {
		var c *netstack.Conn
		require.Eventually(t, func() (ok bool) { // until the guest's own last ACK has come
			var err error
			c, err = p.guest.DialTCP(withTimeout(t), from, to)
			return err == nil
		}, patience, time.Millisecond)
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, c.Close())
	}
}

func TestDialErrors(t *testing.T) {
	p := newPair(t, 1500)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	used, err := p.guest.ListenTCP(netip.AddrPortFrom(guestAddr, 4000))
	require.NoError(t, err)
	defer func() { _ = used.Close() }()
	p.router.HandleTCP(func(_ context.Context, r *netstack.Request) {
		if r.Dst.Port() == 81 {
			r.Unreachable(1)
			return
		}
		r.Refuse()
	})
	for name, tt := range map[string]struct {
		ctx      context.Context
		from, to string
		want     error
	}{
		"refused by nobody listening": {to: "192.168.127.1:9", want: netstack.ErrRefused},
		"refused by handler":          {to: "198.51.100.7:80", want: netstack.ErrRefused},
		"unreachable by handler":      {to: "198.51.100.7:81", want: netstack.ErrHostUnreachable},
		"nobody has the address":      {to: "192.168.127.99:80", want: netstack.ErrHostUnreachable},
		"ended context":               {ctx: canceled, to: "192.168.127.1:9", want: context.Canceled},
		"source in use":               {from: "192.168.127.2:4000", to: "192.168.127.1:9", want: netstack.ErrAddrInUse},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.ctx == nil {
				tt.ctx = withTimeout(t)
			}
			var from netip.AddrPort
			if tt.from != "" {
				from = netip.MustParseAddrPort(tt.from)
			}
			c, err := p.guest.DialTCP(tt.ctx, from, netip.MustParseAddrPort(tt.to))
			require.Nil(t, c)
			require.ErrorIs(t, err, tt.want)
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			require.Equal(t, tt.to, op.Addr.String())
		})
	}
}

func TestDialEndsWithItsContextAndLeavesNothing(t *testing.T) {
	p := newPair(t, 1500)
	asked := make(chan struct{}, 1)
	p.router.HandleTCP(func(ctx context.Context, _ *netstack.Request) {
		asked <- struct{}{}
		<-ctx.Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	from := netip.AddrPortFrom(guestAddr, 5000)
	done := during(func() {
		_, err := p.guest.DialTCP(ctx, from, netip.AddrPortFrom(worldAddr, 80))
		if err == nil || ctx.Err() == nil {
			t.Errorf("dial: %v", err)
		}
	})
	<-asked
	cancel()
	await(t, done, "DialTCP")
	ln, err := p.guest.ListenTCP(from)
	require.NoError(t, err, "the port is free again")
	require.NoError(t, ln.Close())
}
