// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/containers/gvisor-tap-vsock/pkg/client"
	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

type resolverFunc func(ctx context.Context, network string, query []byte) ([]byte, error)

func (f resolverFunc) Resolve(ctx context.Context, network string, query []byte) ([]byte, error) {
	return f(ctx, network, query)
}

func refuseAll(_ context.Context, _ string, query []byte) ([]byte, error) {
	q := new(dns.Msg)
	if err := q.Unpack(query); err != nil {
		return nil, err
	}
	return new(dns.Msg).SetRcode(q, dns.RcodeRefused).Pack()
}

// query asks the gateway over a transport.
func (g *guest) query(t testing.TB, transport, name string, kind uint16) *dns.Msg {
	t.Helper()
	to := netip.AddrPortFrom(gateway, 53)
	var c net.Conn
	var err error
	if transport == "tcp" {
		c = g.dial(t, to)
	} else {
		c, err = g.DialUDP(netip.AddrPort{}, to)
		require.NoError(t, err)
		defer c.Close() //nolint:errcheck // the end
	}
	answer, _, err := (&dns.Client{Net: transport, Timeout: patience}).ExchangeWithConnContext(withTimeout(t), new(dns.Msg).SetQuestion(name, kind), &dns.Conn{Conn: c})
	require.NoError(t, err)
	return answer
}

func TestDNSAsksTheResolver(t *testing.T) {
	asked := make(chan string, 16)
	sw := newSwitch(t, hostswitch.Config{Resolver: resolverFunc(func(_ context.Context, network string, query []byte) ([]byte, error) {
		q := new(dns.Msg)
		if err := q.Unpack(query); err != nil {
			return nil, err
		}
		asked <- network + " " + q.Question[0].Name
		if strings.HasPrefix(q.Question[0].Name, "broken.") {
			return nil, errors.New("no server")
		}
		a := new(dns.Msg).SetReply(q)
		rr, err := dns.NewRR(q.Question[0].Name + ` 60 IN TXT "by ` + network + `"`)
		a.Answer = []dns.RR{rr}
		if err != nil {
			return nil, err
		}
		return a.Pack()
	})})
	g := attach(t, sw, 2)
	for _, transport := range []string{"udp", "tcp"} {
		a := g.query(t, transport, "name.example.", dns.TypeTXT)
		require.Len(t, a.Answer, 1)
		require.Equal(t, []string{"by " + transport}, a.Answer[0].(*dns.TXT).Txt)
		require.Equal(t, transport+" name.example.", <-asked)

		require.Equal(t, dns.RcodeServerFailure, g.query(t, transport, "broken.example.", dns.TypeA).Rcode)
		require.Equal(t, transport+" broken.example.", <-asked)

		a = g.query(t, transport, "host.docker.internal.", dns.TypeA)
		require.Equal(t, hostAlias.String(), a.Answer[0].(*dns.A).A.String())
		require.Equal(t, dns.RcodeNameError, g.query(t, transport, "nobody.docker.internal.", dns.TypeA).Rcode)
	}
	require.Empty(t, asked, "zones do not reach the resolver")
}

// The host's resolver is not asked here; that a zone is answered beside it is
// what can be said on every machine.
func TestDNSWithTheHostsResolver(t *testing.T) {
	g := attach(t, newSwitch(t, hostswitch.Config{}), 2)
	for _, transport := range []string{"udp", "tcp"} {
		a := g.query(t, transport, "gateway.rancher-desktop.internal.", dns.TypeA)
		require.Equal(t, gateway.String(), a.Answer[0].(*dns.A).A.String())
	}
	require.Equal(t, "gateway.rancher-desktop.internal.", g.query(t, "udp", "1.127.168.192.in-addr.arpa.", dns.TypePTR).Answer[0].(*dns.PTR).Ptr)
}

// A resolver that hangs holds up neither zones nor Close.
func TestDNSWithAHungResolver(t *testing.T) {
	asked := make(chan struct{}, 1)
	sw := newSwitch(t, hostswitch.Config{Resolver: resolverFunc(func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})})
	g := attach(t, sw, 2)
	c, err := g.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(gateway, 53))
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // the end
	wire, err := new(dns.Msg).SetQuestion("slow.example.", dns.TypeA).Pack()
	require.NoError(t, err)
	_, err = c.Write(wire)
	require.NoError(t, err)
	await(t, asked, "the query")
	require.Equal(t, dns.RcodeSuccess, g.query(t, "udp", "host.docker.internal.", dns.TypeA).Rcode)
	await(t, during(func() { require.NoError(t, sw.Close()) }), "Close")
}

func TestAddDNS(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	api := httptest.NewServer(sw.Handler())
	defer api.Close()
	c := client.New(api.Client(), api.URL)
	require.NoError(t, c.AddDNS(&types.Zone{Name: "test.internal.", Records: []types.Record{{Name: "db", IP: net.IPv4(192, 168, 127, 9)}}}))
	require.Equal(t, "192.168.127.9", g.query(t, "udp", "db.test.internal.", dns.TypeA).Answer[0].(*dns.A).A.String())
	zones, err := c.ListDNS()
	require.NoError(t, err)
	var names []string
	for _, z := range zones {
		names = append(names, z.Name)
	}
	require.Equal(t, []string{"rancher-desktop.internal.", "docker.internal.", "test.internal."}, names)
	require.ErrorContains(t, c.AddDNS(&types.Zone{Name: "test..internal."}), "domain name")

	res, err := api.Client().Post(api.URL+"/services/dns/add", "application/json", strings.NewReader("{")) //nolint:noctx // the client's own
	require.NoError(t, err)
	body, _ := io.ReadAll(res.Body)
	require.NoError(t, res.Body.Close())
	require.Equal(t, 400, res.StatusCode, string(body))
}
