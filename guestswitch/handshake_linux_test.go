// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/guestswitch"
)

type anyone struct{}

func (anyone) Allow(net.Conn) error { return nil }

var protocol = discovery.RancherDesktop

// shaking is a Guest that shakes hands, with unix sockets in dir for vsock.
func shaking(t *testing.T) (g *guestswitch.Guest, dir string) {
	t.Helper()
	dir = t.TempDir()
	socket := func(port uint32) string { return filepath.Join(dir, fmt.Sprint(port, ".sock")) }
	return &guestswitch.Guest{
		Responder: &discovery.Responder{Protocol: protocol, Filter: anyone{}},
		Listen: func(ctx context.Context) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "unix", socket(protocol.HandshakePort))
		},
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket(protocol.DataPort))
		},
		DHCP: static(),
	}, dir
}

// discover is the host's first half of the handshake.
func discover(t *testing.T, dir string) (*discovery.Discoverer, discovery.Peer) {
	t.Helper()
	d := &discovery.Discoverer{Source: discovery.Unix(dir), Protocol: protocol, Interval: 5 * time.Millisecond}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := d.Discover(ctx)
	require.NoError(t, err)
	return d, p
}

// The host is dialled when it has said READY, and not before. When it has gone
// away, another run shakes hands again (FAILURES 17).
func TestHandshakeBeforeEachConnection(t *testing.T) {
	g, dir := shaking(t)
	ns := newNamespace(t)
	dialled := make(chan struct{}, 1)
	dial := g.Dial
	g.Dial = func(ctx context.Context) (net.Conn, error) { dialled <- struct{}{}; return dial(ctx) }
	for range 3 {
		r := startDialled(t, ns, g)
		d, p := discover(t, dir)
		ns.link("eth0") // the name is taken before anybody is told anything
		require.Empty(t, dialled)
		ln, err := p.Listen(protocol.DataPort)
		require.NoError(t, err)
		require.NoError(t, d.SignalReady(t.Context(), p))
		conn, err := ln.Accept()
		require.NoError(t, err)
		require.NoError(t, ln.Close())
		<-dialled
		require.NoFileExists(t, filepath.Join(dir, "6669.sock"), "nobody answers while there is a connection")
		h := serve(t, conn, silent)
		r.wait(guestswitch.Configured)
		h.answers()
		require.NoError(t, <-r.reports)
		require.NoError(t, conn.Close())
		require.ErrorIs(t, r.end(), io.EOF)
		require.Equal(t, untouched, ns.state())
	}
}

// FAILURES 15: it waits for nobody when it is to end, and that is no error.
func TestEndInTheHandshake(t *testing.T) {
	for name, reach := range map[string]func(t *testing.T, dir string){
		"nobody came":      func(*testing.T, string) {},
		"found, not READY": func(t *testing.T, dir string) { discover(t, dir) },
		"a peer is silent": func(t *testing.T, dir string) {
			conn, err := new(net.Dialer).DialContext(t.Context(), "unix", filepath.Join(dir, "6669.sock"))
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			_, err = io.ReadFull(conn, make([]byte, len(protocol.Signature)))
			require.NoError(t, err)
		},
		"a peer sent half of READY": func(t *testing.T, dir string) {
			conn, err := new(net.Dialer).DialContext(t.Context(), "unix", filepath.Join(dir, "6669.sock"))
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			_, err = io.WriteString(conn, "REA")
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, dir := shaking(t)
			listens := make(chan struct{})
			listen := g.Listen
			g.Listen = func(ctx context.Context) (net.Listener, error) { defer close(listens); return listen(ctx) }
			g.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("dialled") }
			ns := newNamespace(t)
			before := descriptors(t)
			r := startDialled(t, ns, g)
			<-listens
			reach(t, dir)
			r.stop()
			require.Empty(t, r.reports)
			require.Empty(t, r.events)
			require.NoFileExists(t, filepath.Join(dir, "6669.sock"))
			require.LessOrEqual(t, descriptors(t), before+1, "but the test's own connection")
		})
	}
}

func TestHandshakeThatCannotBegin(t *testing.T) {
	taken := errors.New("port taken")
	for name, c := range map[string]struct {
		spoil     func(*guestswitch.Guest)
		says      string
		permanent bool
	}{
		"Listen fails": {
			func(g *guestswitch.Guest) {
				g.Listen = func(context.Context) (net.Listener, error) { return nil, taken }
			}, "guestswitch: shake hands with the host: port taken", false,
		},
		"the listener breaks": {
			func(g *guestswitch.Guest) {
				listen := g.Listen
				g.Listen = func(ctx context.Context) (net.Listener, error) {
					ln, err := listen(ctx)
					if err == nil {
						err = ln.Close()
					}
					return ln, err
				}
			}, "guestswitch: shake hands with the host: discovery: no READY: accept", false,
		},
		"nobody is trusted": {
			func(g *guestswitch.Guest) { g.Responder.Filter = nil }, "Responder.Filter is nil", true,
		},
		"no protocol": {
			func(g *guestswitch.Guest) { g.Responder.Protocol = discovery.Protocol{} }, "Protocol.Signature is empty", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, dir := shaking(t)
			g.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("dialled") }
			c.spoil(g)
			ns := newNamespace(t)
			before := descriptors(t)
			for range 2 {
				err := startDialled(t, ns, g).end()
				require.ErrorContains(t, err, c.says)
				var p interface{ Permanent() bool }
				require.Equal(t, c.permanent, errors.As(err, &p) && p.Permanent())
			}
			require.Equal(t, untouched, ns.state())
			require.NoFileExists(t, filepath.Join(dir, "6669.sock"))
			require.LessOrEqual(t, descriptors(t), before)
		})
	}
}

// AF_VSOCK belongs to the namespace where the socket was opened, and so do abstract
// unix sockets: hands are shaken where Run was called, wherever the tap lives.
func TestHandshakeInTheCallersNamespace(t *testing.T) {
	g, dir := shaking(t)
	ns := newNamespace(t)
	name := fmt.Sprintf("@guestswitch-%d-%s", os.Getpid(), filepath.Base(filepath.Dir(dir)))
	listens := make(chan struct{})
	g.Listen = func(ctx context.Context) (net.Listener, error) {
		defer close(listens)
		return new(net.ListenConfig).Listen(ctx, "unix", name)
	}
	near, far := socketPair(t)
	serve(t, far, silent)
	g.Dial = func(context.Context) (net.Conn, error) { return near, nil }
	r := startDialled(t, ns, g)
	<-listens
	ns.do(func() error {
		_, err := new(net.Dialer).DialContext(t.Context(), "unix", name)
		if err == nil {
			return errors.New("the handshake is offered in the tap's namespace")
		}
		return nil
	})
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", name)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // the end
	_, err = io.WriteString(conn, "READY")
	require.NoError(t, err)
	r.wait(guestswitch.Connected)
	r.stop()
}
