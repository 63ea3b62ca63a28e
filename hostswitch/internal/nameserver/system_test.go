// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver_test

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

// FAILURES 22: every type gets the answer that the host's server gives.
func TestQueryMatrix(t *testing.T) {
	u := newUpstream(t, upstreamZone)
	_, addr := serve(t, nameserver.Config{Zones: zones, Resolver: serversOnly(t, u)})
	const odd = 65280
	for _, tc := range []struct {
		name    string
		qtype   uint16
		rcode   string
		answers int
	}{
		{"www.example.test.", dns.TypeA, "NOERROR", 2},
		{"WwW.eXample.test.", dns.TypeA, "NOERROR", 2},
		{"www.example.test.", dns.TypeAAAA, "NOERROR", 1},
		{"alias.example.test.", dns.TypeA, "NOERROR", 3},
		{"alias.example.test.", dns.TypeCNAME, "NOERROR", 1},
		{"example.test.", dns.TypeMX, "NOERROR", 1},
		{"long.example.test.", dns.TypeTXT, "NOERROR", 1},
		{"_x._tcp.example.test.", dns.TypeSRV, "NOERROR", 1},
		{"example.test.", dns.TypeSOA, "NOERROR", 1},
		{"example.test.", dns.TypeNS, "NOERROR", 1},
		{"example.test.", dns.TypeCAA, "NOERROR", 1},
		{"svc.example.test.", dns.TypeHTTPS, "NOERROR", 1},
		{"odd.example.test.", odd, "NOERROR", 1},
		{`b\195\188cher.example.test.`, dns.TypeA, "NOERROR", 1},
		{"10.2.0.192.in-addr.arpa.", dns.TypePTR, "NOERROR", 1},
		{"www.example.test.", dns.TypeMX, "NOERROR", 0},
		{"www.example.test.", odd, "NOERROR", 0},
		{"none.example.test.", dns.TypeA, "NXDOMAIN", 0},
		{"none.example.test.", dns.TypeSOA, "NXDOMAIN", 0},
		{"big.example.test.", dns.TypeTXT, "NOERROR", 60},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(network+" "+dns.TypeToString[tc.qtype]+" "+tc.name, func(t *testing.T) {
				q := query(tc.name, tc.qtype)
				m := ask(t, network, addr, q)
				if network == "udp" && m.Truncated {
					require.Equal(t, "big.example.test.", tc.name)
					m = ask(t, "tcp", addr, q)
				}
				want := ask(t, "tcp", u.addr, q)
				require.Equal(t, tc.rcode, rcode(m))
				require.Len(t, m.Answer, tc.answers)
				require.Equal(t, texts(want.Answer), texts(m.Answer), "with their TTL and aliases")
				require.Equal(t, texts(want.Ns), texts(m.Ns), "the SOA too")
			})
		}
	}
}

func TestBitsPassThrough(t *testing.T) {
	u := newUpstream(t, upstreamZone)
	_, addr := serve(t, nameserver.Config{Resolver: serversOnly(t, u)})
	for range 8 {
		q := query("www.example.test.", dns.TypeA).SetEdns0(1400, true)
		q.CheckingDisabled, q.AuthenticatedData, q.RecursionDesired = true, true, false
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")})
		m := ask(t, "udp", addr, q)
		require.True(t, m.IsEdns0().Do())
	}
	ids := map[uint16]bool{}
	for _, q := range u.seen() {
		require.True(t, q.CheckingDisabled && q.AuthenticatedData && !q.RecursionDesired && q.IsEdns0().Do())
		require.Len(t, q.IsEdns0().Option, 1)
		ids[q.Id] = true
	}
	require.Greater(t, len(ids), 2, "IDs towards the server are our own")
}

// FAILURES 22: no server at all is no reason to fail, neither now nor later.
func TestNoServers(t *testing.T) {
	for name, path := range map[string]string{
		"no file":                  t.TempDir() + "/none",
		"no line":                  resolvConf(t, "search x.test\n"),
		"no sense":                 resolvConf(t, "nameserver\nnameserver nowhere\nnameserver 1.2.3.4.5\n\x00\xff\n"),
		"no file, but a directory": t.TempDir(),
	} {
		t.Run(name, func(t *testing.T) {
			sys := nameserver.NewSystem(nameserver.SystemConfig{ResolvConf: path, Lookup: noSystem})
			_, addr := serve(t, nameserver.Config{Zones: zones, Resolver: sys})
			for _, network := range []string{"udp", "tcp"} {
				require.Equal(t, "SERVFAIL", rcode(ask(t, network, addr, query("www.example.test.", dns.TypeA))))
				require.Equal(t, "NOERROR", rcode(ask(t, network, addr, query("host.docker.internal.", dns.TypeA))))
			}
			wire, err := query("www.example.test.", dns.TypeA).Pack()
			require.NoError(t, err)
			_, err = sys.Resolve(t.Context(), "udp", wire)
			require.ErrorIs(t, err, nameserver.ErrNoServers)
		})
	}
}

// FAILURES 22, RD#8055: a VPN that comes up is followed.
func TestResolvConfIsFollowed(t *testing.T) {
	home := newUpstream(t, "www.example.test. 300 A 192.0.2.1")
	vpn := newUpstream(t, "www.example.test. 300 A 192.0.2.2")
	path := t.TempDir() + "/resolv.conf"
	sys := nameserver.NewSystem(nameserver.SystemConfig{ResolvConf: path, Lookup: noSystem, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return map[string]*upstream{"10.0.0.1:53": home, "10.0.0.2:53": vpn}[address].dial(ctx, network, address)
	}})
	s, err := nameserver.New(nameserver.Config{Resolver: sys})
	require.NoError(t, err)
	check := func(search []string, code string, answers ...string) {
		t.Helper()
		require.Equal(t, search, sys.SearchDomains())
		m := answer(t, s, "udp", query("www.example.test.", dns.TypeA))
		require.Equal(t, code, rcode(m))
		require.Equal(t, answers, append([]string(nil), texts(m.Answer)...))
	}
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }

	check(nil, "SERVFAIL")
	write("search home.test\nnameserver 10.0.0.1\n")
	check([]string{"home.test"}, "NOERROR", "www.example.test. 300 IN A 192.0.2.1")
	write("search work.test\nnameserver 10.0.0.2\n") // the same size, within the clock's grain
	check([]string{"work.test"}, "NOERROR", "www.example.test. 300 IN A 192.0.2.2")

	// Replaced by a file of another time, which is cached; then by another.
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, old, old))
	check([]string{"work.test"}, "NOERROR", "www.example.test. 300 IN A 192.0.2.2")
	next := resolvConf(t, "search home.test\nnameserver 10.0.0.1\n")
	require.NoError(t, os.Chtimes(next, old, old))
	require.NoError(t, os.Rename(next, path)) // as resolvconf and NetworkManager do
	check([]string{"home.test"}, "NOERROR", "www.example.test. 300 IN A 192.0.2.1")
	require.NoError(t, os.Remove(path))
	check(nil, "SERVFAIL")
}

func TestSearchDomains(t *testing.T) {
	for text, want := range map[string][]string{
		"domain a.test\n":                      {"a.test"},
		"search a.test b.test. A.TEST . c # d": {"a.test", "b.test", "c"},
		"search a.test\ndomain b.test\n":       {"b.test"},
		"# search a.test\n;search b.test\n":    nil,
		"search\n":                             nil,
	} {
		sys := nameserver.NewSystem(nameserver.SystemConfig{ResolvConf: resolvConf(t, text)})
		require.Equal(t, want, sys.SearchDomains(), text)
	}
}

// servers leads each address of a resolv.conf somewhere, and notes the order.
type servers struct {
	mu    sync.Mutex
	dials []string
	to    map[string]func(ctx context.Context, network, address string) (net.Conn, error)
}

func (s *servers) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	s.dials = append(s.dials, network+" "+address)
	to := s.to[address]
	s.mu.Unlock()
	if to == nil {
		return nil, syscall.ENETUNREACH
	}
	return to(ctx, network, address)
}

func TestServersAreTriedInOrder(t *testing.T) {
	good := newUpstream(t, upstreamZone)
	broken := newUpstream(t, "")
	broken.set(dns.RcodeServerFailure)
	refusing := newUpstream(t, "")
	refusing.set(dns.RcodeRefused)
	silentLn, silentConn := listenBoth(t)
	t.Cleanup(func() { _ = silentLn.Close(); _ = silentConn.Close() })
	to := map[string]func(context.Context, string, string) (net.Conn, error){
		"10.0.0.1:53": good.dial, "10.0.0.2:53": broken.dial, "10.0.0.3:53": refusing.dial,
		"10.0.0.4:53": func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, silentLn.Addr().String())
		},
		"10.0.0.5:53":       func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
		"[fe80::1%eth0]:53": good.dial,
	}
	for name, tc := range map[string]struct {
		conf  string
		code  string
		dials []string
	}{
		"first answers": {"nameserver 10.0.0.1\nnameserver 10.0.0.2", "NOERROR", []string{"udp 10.0.0.1:53"}},
		"scoped":        {"nameserver fe80::1%eth0", "NOERROR", []string{"udp [fe80::1%eth0]:53"}},
		"unreachable":   {"nameserver 10.0.0.9\nnameserver 10.0.0.1", "NOERROR", []string{"udp 10.0.0.9:53", "udp 10.0.0.1:53"}},
		"broken":        {"nameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.1", "NOERROR", []string{"udp 10.0.0.2:53", "udp 10.0.0.3:53", "udp 10.0.0.1:53"}},
		"silent":        {"nameserver 10.0.0.4\nnameserver 10.0.0.1\noptions timeout:1", "NOERROR", []string{"udp 10.0.0.4:53", "udp 10.0.0.1:53"}},
		"hangs at dial": {"nameserver 10.0.0.5\nnameserver 10.0.0.1\noptions timeout:1", "NOERROR", []string{"udp 10.0.0.5:53", "udp 10.0.0.1:53"}},
		"all unreachable": {"nameserver 10.0.0.8\nnameserver 10.0.0.9\noptions attempts:3", "SERVFAIL", []string{
			"udp 10.0.0.8:53", "udp 10.0.0.9:53", "udp 10.0.0.8:53", "udp 10.0.0.9:53", "udp 10.0.0.8:53", "udp 10.0.0.9:53",
		}},
		"all refuse":     {"nameserver 10.0.0.2\nnameserver 10.0.0.3", "REFUSED", []string{"udp 10.0.0.2:53", "udp 10.0.0.3:53"}},
		"named twice":    {"nameserver 10.0.0.2\nnameserver 10.0.0.2", "SERVFAIL", []string{"udp 10.0.0.2:53"}},
		"timeout option": {"nameserver 10.0.0.5\noptions timeout:1 attempts:1", "SERVFAIL", []string{"udp 10.0.0.5:53"}},
	} {
		t.Run(name, func(t *testing.T) {
			sv := &servers{to: to}
			sys := nameserver.NewSystem(nameserver.SystemConfig{ResolvConf: resolvConf(t, tc.conf), Lookup: noSystem, Dial: sv.dial})
			s, err := nameserver.New(nameserver.Config{Resolver: sys, Timeout: limit})
			require.NoError(t, err)
			require.Equal(t, tc.code, rcode(answer(t, s, "udp", query("www.example.test.", dns.TypeA))))
			require.Equal(t, tc.dials, sv.dials)
		})
	}
}

func TestRotate(t *testing.T) {
	u := newUpstream(t, upstreamZone)
	sv := &servers{to: map[string]func(context.Context, string, string) (net.Conn, error){"10.0.0.1:53": u.dial, "10.0.0.2:53": u.dial}}
	sys := nameserver.NewSystem(nameserver.SystemConfig{
		ResolvConf: resolvConf(t, "nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions rotate"), Lookup: noSystem, Dial: sv.dial,
	})
	s, err := nameserver.New(nameserver.Config{Resolver: sys})
	require.NoError(t, err)
	for range 4 {
		answer(t, s, "udp", query("www.example.test.", dns.TypeA))
	}
	require.ElementsMatch(t, []string{"udp 10.0.0.1:53", "udp 10.0.0.2:53", "udp 10.0.0.1:53", "udp 10.0.0.2:53"}, sv.dials)
}

// FAILURES 21: a network that was away is used again when it is back.
func TestNetworkComesBack(t *testing.T) {
	u := newUpstream(t, upstreamZone)
	var away atomic.Bool
	sys := nameserver.NewSystem(nameserver.SystemConfig{
		ResolvConf: resolvConf(t, "nameserver 10.0.0.1"), Lookup: noSystem,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if away.Load() {
				return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
			}
			return u.dial(ctx, network, address)
		},
	})
	_, addr := serve(t, nameserver.Config{Resolver: sys})
	for range 3 {
		away.Store(true)
		require.Equal(t, "SERVFAIL", rcode(ask(t, "udp", addr, query("www.example.test.", dns.TypeA))))
		away.Store(false)
		require.Equal(t, "NOERROR", rcode(ask(t, "udp", addr, query("www.example.test.", dns.TypeA))))
	}
}

func TestForgedAnswersAreIgnored(t *testing.T) {
	u := newUpstream(t, upstreamZone)
	u.mu.Lock()
	u.forge = true
	u.mu.Unlock()
	_, addr := serve(t, nameserver.Config{Resolver: serversOnly(t, u)})
	m := ask(t, "udp", addr, query("www.example.test.", dns.TypeA))
	require.Len(t, m.Answer, 2)
	m = ask(t, "tcp", addr, query("big.example.test.", dns.TypeTXT))
	require.Len(t, m.Answer, 60)
}

func TestResolveEndsWithItsContext(t *testing.T) {
	ln, pc := listenBoth(t)
	t.Cleanup(func() { _ = ln.Close(); _ = pc.Close() })
	sys := nameserver.NewSystem(nameserver.SystemConfig{
		ResolvConf: resolvConf(t, "nameserver 10.0.0.1"), Lookup: noSystem,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, ln.Addr().String())
		},
	})
	wire, err := query("www.example.test.", dns.TypeA).Pack()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := sys.Resolve(ctx, "udp", wire)
		done <- err
	}()
	_, _, err = pc.ReadFrom(make([]byte, 512)) // it waits for our answer now
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)

	for _, bad := range [][]byte{nil, wire[:11], wire[:len(wire)-1]} {
		_, err := sys.Resolve(t.Context(), "udp", bad)
		require.Error(t, err)
	}
}

// The default of each system knows its hosts file, which has localhost on all.
func TestHostsFile(t *testing.T) {
	house.WineLacks(t, "names of the hosts file with their final dot, and its reverse names")
	u := newUpstream(t, "")
	sys := nameserver.NewSystem(nameserver.SystemConfig{ResolvConf: resolvConf(t, "nameserver 10.0.0.1"), Dial: u.dial})
	s, err := nameserver.New(nameserver.Config{Resolver: sys})
	require.NoError(t, err)
	for _, name := range []string{"localhost.", "LocalHost."} {
		m := answer(t, s, "udp", query(name, dns.TypeA))
		require.Len(t, m.Answer, 1)
		require.Equal(t, "127.0.0.1", m.Answer[0].(*dns.A).A.String())
		require.Equal(t, name, m.Answer[0].Header().Name)
	}
	require.Equal(t, "NXDOMAIN", rcode(answer(t, s, "udp", query("::1.", dns.TypeAAAA))), "not a name")
	for _, qtype := range []uint16{dns.TypeAAAA, dns.TypeMX, dns.TypeHTTPS} {
		require.Equal(t, "NOERROR", rcode(answer(t, s, "udp", query("localhost.", qtype))), "the name exists")
	}
	require.Contains(t, texts(answer(t, s, "udp", query("1.0.0.127.in-addr.arpa.", dns.TypePTR)).Answer)[0], "localhost.")
}
