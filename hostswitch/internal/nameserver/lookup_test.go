// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
)

// A horizon is a host whose operating system knows one set of names, and whose
// servers know another.
type horizon struct {
	*nameserver.Server
	system, servers *upstream
}

const systemZone = `
$ORIGIN corp.test.
$TTL 300
vpn      A     10.1.1.1
vpn      A     10.1.1.2
six      AAAA  2001:db8::1
both     A     10.1.1.3
alias    CNAME vpn
broken   CNAME none
@        SOA   ns hostmaster 7 3600 600 86400 60
@        MX    5 mail
@        NS    ns
_l._tcp  SRV   0 0 389 vpn
text     TXT   "say \"hi\" \\ \200"
1.1.1.10.in-addr.arpa. PTR vpn
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR six
`

// systems are the hosts that horizons has.
var systems = []string{"Windows", "macOS"}

// horizons has a host of each kind. In place of Windows' DnsQueryEx and of macOS's
// libc stand a DNS client and Go's own resolver, with one server; all that decides
// what to ask and what an answer means is the true code.
func horizons(t *testing.T) []horizon {
	t.Helper()
	var hosts []horizon
	for _, lookup := range []func(*upstream) nameserver.Lookup{
		func(u *upstream) nameserver.Lookup { return nameserver.DNSAPILookup(u.queryEx) },
		func(u *upstream) nameserver.Lookup { return nameserver.LibcLookup(u.resolver()) },
	} {
		h := horizon{system: newUpstream(t, systemZone), servers: newUpstream(t, upstreamZone+"both.corp.test. 300 A 192.0.2.99\npublic.corp.test. 300 A 192.0.2.98\n")}
		var err error
		h.Server, err = nameserver.New(nameserver.Config{Resolver: nameserver.NewSystem(nameserver.SystemConfig{
			ResolvConf: resolvConf(t, "nameserver 10.0.0.1"), Dial: h.servers.dial, Lookup: lookup(h.system),
		})})
		require.NoError(t, err)
		hosts = append(hosts, h)
	}
	return hosts
}

// queryEx answers as DnsQueryEx does.
func (u *upstream) queryEx(ctx context.Context, name string, qtype uint16) ([]dns.RR, uint32) {
	m, _, err := new(dns.Client).ExchangeContext(ctx, query(name+".", qtype), u.addr)
	switch {
	case err != nil:
		return nil, 1460 // ERROR_TIMEOUT
	case m.Rcode != dns.RcodeSuccess:
		return m.Answer, 9000 + uint32(m.Rcode)
	case !slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == qtype }):
		return nil, 9501 // DNS_INFO_NO_RECORDS
	}
	return m.Answer, 0
}

// FAILURES 22: the operating system's word is the last on what it can be asked.
func TestOperatingSystemIsAskedInTheServersPlace(t *testing.T) {
	const six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."
	// A code and the records, or "servers": they are asked. Windows, and macOS if
	// that is different.
	cases := []struct {
		name    string
		qtype   uint16
		answers []string
	}{
		{"vpn.corp.test.", dns.TypeA, []string{"NOERROR; vpn.corp.test. 300 IN A 10.1.1.1; vpn.corp.test. 300 IN A 10.1.1.2", "NOERROR; vpn.corp.test. 10 IN A 10.1.1.1; vpn.corp.test. 10 IN A 10.1.1.2"}},
		{"BOTH.corp.test.", dns.TypeA, []string{"NOERROR; BOTH.corp.test. 300 IN A 10.1.1.3", "NOERROR; BOTH.corp.test. 10 IN A 10.1.1.3"}},
		{"six.corp.test.", dns.TypeAAAA, []string{"NOERROR; six.corp.test. 300 IN AAAA 2001:db8::1", "NOERROR; six.corp.test. 10 IN AAAA 2001:db8::1"}},
		{"alias.corp.test.", dns.TypeA, []string{"NOERROR; alias.corp.test. 300 IN CNAME vpn.corp.test.; vpn.corp.test. 300 IN A 10.1.1.1; vpn.corp.test. 300 IN A 10.1.1.2", "NOERROR; alias.corp.test. 10 IN A 10.1.1.1; alias.corp.test. 10 IN A 10.1.1.2"}},
		{"1.1.1.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR; 1.1.1.10.in-addr.arpa. 300 IN PTR vpn.corp.test.", "NOERROR; 1.1.1.10.in-addr.arpa. 10 IN PTR vpn.corp.test."}},
		{six, dns.TypePTR, []string{"NOERROR; " + six + " 300 IN PTR six.corp.test.", "NOERROR; " + six + " 10 IN PTR six.corp.test."}},
		// The name has an address of the other family, or it has none.
		{"vpn.corp.test.", dns.TypeAAAA, []string{"NOERROR"}},
		{"six.corp.test.", dns.TypeA, []string{"NOERROR"}},
		{"corp.test.", dns.TypeA, []string{"NOERROR", "NXDOMAIN"}}, // libc cannot tell
		{"none.corp.test.", dns.TypeA, []string{"NXDOMAIN"}},
		{"none.corp.test.", dns.TypeAAAA, []string{"NXDOMAIN"}},
		{"broken.corp.test.", dns.TypeA, []string{"NXDOMAIN"}},
		{"9.9.9.10.in-addr.arpa.", dns.TypePTR, []string{"NXDOMAIN"}},
		// What only the servers know does not exist for the host's programs.
		{"public.corp.test.", dns.TypeA, []string{"NXDOMAIN"}},
		{"www.example.test.", dns.TypeAAAA, []string{"NXDOMAIN"}},
		// Types and names that one system or none can be asked about.
		{"corp.test.", dns.TypeMX, []string{"NOERROR; corp.test. 300 IN MX 5 mail.corp.test.", "servers"}},
		{"corp.test.", dns.TypeNS, []string{"NOERROR; corp.test. 300 IN NS ns.corp.test.", "servers"}},
		{"corp.test.", dns.TypeSOA, []string{"NOERROR; corp.test. 300 IN SOA ns.corp.test. hostmaster.corp.test. 7 3600 600 86400 60", "servers"}},
		{"alias.corp.test.", dns.TypeCNAME, []string{"NOERROR; alias.corp.test. 300 IN CNAME vpn.corp.test.", "servers"}},
		{"_l._tcp.corp.test.", dns.TypeSRV, []string{"NOERROR; _l._tcp.corp.test. 300 IN SRV 0 0 389 vpn.corp.test.", "servers"}},
		{"text.corp.test.", dns.TypeTXT, []string{`NOERROR; text.corp.test. 300 IN TXT "say \"hi\" \\ \200"`, "servers"}},
		{"vpn.corp.test.", dns.TypeMX, []string{"NOERROR", "servers"}},
		{"none.corp.test.", dns.TypeTXT, []string{"NXDOMAIN", "servers"}},
		{"x.10.in-addr.arpa.", dns.TypePTR, []string{"NXDOMAIN", "servers"}},
		{"vpn.corp.test.", dns.TypeHTTPS, []string{"servers"}},
		{"none.corp.test.", dns.TypeHTTPS, []string{"servers"}},
		{"example.test.", dns.TypeCAA, []string{"servers"}},
		{`b\195\188cher.example.test.`, dns.TypeA, []string{"servers"}},
		{"10.1.1.1.", dns.TypeA, []string{"servers"}},
		{".", dns.TypeA, []string{"servers"}},
	}
	for i, h := range horizons(t) {
		for _, tc := range cases {
			t.Run(fmt.Sprint(systems[i], " ", tc.name, " ", dns.TypeToString[tc.qtype]), func(t *testing.T) {
				want, before := tc.answers[min(i, len(tc.answers)-1)], len(h.servers.seen())
				m := answer(t, h.Server, "udp", query(tc.name, tc.qtype))
				asked := h.servers.seen()[before:]
				if want == "servers" {
					require.Len(t, asked, 1)
					require.Equal(t, tc.name, asked[0].Question[0].Name)
					return
				}
				require.Empty(t, asked, "it left the VPN")
				records := texts(m.Answer)
				slices.Sort(records) // RFC 2181, section 5: a set
				require.Equal(t, want, strings.Join(append([]string{rcode(m)}, records...), "; "))
			})
		}
	}
}

// A name that the servers deny or do not tell of, but the operating system has an
// address for, does exist.
func TestOperatingSystemKnowsThatANameExists(t *testing.T) {
	for i, h := range horizons(t) {
		ask := func(name string) *dns.Msg { return answer(t, h.Server, "udp", query(name, dns.TypeHTTPS)) }
		m := ask("vpn.corp.test.")
		require.Equal(t, "NOERROR", rcode(m), systems[i])
		require.Len(t, m.Ns, 1, "the SOA says how long")
		require.Equal(t, "NOERROR", rcode(ask("six.corp.test.")), systems[i])
		require.Equal(t, "NXDOMAIN", rcode(ask("none.corp.test.")), systems[i])
		require.Len(t, ask("svc.example.test.").Answer, 1, "records count, whatever the system says")
		h.servers.set(dns.RcodeServerFailure)
		require.Equal(t, "NOERROR", rcode(ask("vpn.corp.test.")), systems[i])
		require.Equal(t, "SERVFAIL", rcode(ask("none.corp.test.")), systems[i])
	}
}

// Signatures would have to come from servers, and the name with the question: the
// operating system answers, and shows that it does not sign.
func TestOperatingSystemDoesNotSign(t *testing.T) {
	for i, h := range horizons(t) {
		m := answer(t, h.Server, "udp", query("both.corp.test.", dns.TypeA).SetEdns0(1232, true))
		require.Contains(t, m.Answer[0].String(), "10.1.1.3", systems[i])
		require.NotNil(t, m.IsEdns0())
		require.False(t, m.IsEdns0().Do() || m.AuthenticatedData, systems[i])
		require.Empty(t, h.servers.seen(), systems[i])
		m = answer(t, h.Server, "udp", query("example.test.", dns.TypeCAA).SetEdns0(1232, true))
		require.True(t, m.IsEdns0().Do(), "what the servers say is theirs")
	}
}

// The servers do not stand in for an operating system that fails: they would see
// names that are not for them, and give answers that the host does not get.
func TestOperatingSystemThatFails(t *testing.T) {
	for i, h := range horizons(t) {
		for _, code := range []int{dns.RcodeServerFailure, dns.RcodeRefused} {
			h.system.set(code)
			for _, q := range []*dns.Msg{query("public.corp.test.", dns.TypeA), query("www.example.test.", dns.TypeAAAA), query("10.2.0.192.in-addr.arpa.", dns.TypePTR)} {
				require.Equal(t, "SERVFAIL", rcode(answer(t, h.Server, "udp", q)), systems[i])
			}
		}
		require.Empty(t, h.servers.seen(), systems[i])
		require.Equal(t, "NOERROR", rcode(answer(t, h.Server, "udp", query("example.test.", dns.TypeCAA))), "the rest works")
		h.system.set(dns.RcodeSuccess)
		require.Equal(t, "NOERROR", rcode(answer(t, h.Server, "udp", query("vpn.corp.test.", dns.TypeA))), "again")
	}
}

// NXDOMAIN needs both families: where one cannot be asked, nobody knows.
func TestDoubtIsNoDenial(t *testing.T) {
	other := errors.New("timeout")
	s, err := nameserver.New(nameserver.Config{Resolver: nameserver.NewSystem(nameserver.SystemConfig{
		ResolvConf: resolvConf(t, ""),
		Lookup: func(_ context.Context, q dns.Question) ([]dns.RR, error) {
			if q.Qtype == dns.TypeA {
				return nil, nameserver.ErrNoName
			}
			return nil, other
		},
	})})
	require.NoError(t, err)
	require.Equal(t, "SERVFAIL", rcode(answer(t, s, "udp", query("x.test.", dns.TypeA))))
	other = nameserver.ErrNoName
	require.Equal(t, "NXDOMAIN", rcode(answer(t, s, "udp", query("x.test.", dns.TypeA))))
}

// A lookup that cannot be interrupted does not hold up its query, and there are
// not too many of them.
func TestLookupsThatHang(t *testing.T) {
	hang, hanging := make(chan struct{}), make(chan struct{}, 8*nameserver.MaxLookups)
	lookup := nameserver.LibcLookup(&net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		hanging <- struct{}{}
		<-hang // whatever the context says
		return nil, errors.New("no")
	}})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, nameserver.MaxLookups)
	ask := func(ctx context.Context, i int) error {
		_, err := lookup(ctx, dns.Question{Name: fmt.Sprintf("n%d.test.", i), Qtype: dns.TypeA, Qclass: dns.ClassINET})
		return err
	}
	for i := range nameserver.MaxLookups {
		go func() { results <- ask(ctx, i) }()
		<-hanging
	}
	cancel()
	for range nameserver.MaxLookups {
		require.ErrorIs(t, <-results, context.Canceled)
	}
	late, end := context.WithTimeout(t.Context(), limit)
	defer end()
	err := ask(late, -1)
	require.ErrorContains(t, err, "hang in the operating system")
	require.NotErrorIs(t, err, errors.ErrUnsupported, "the servers are not asked then")
	close(hang)
	require.Eventually(t, func() bool { return !strings.Contains(ask(t.Context(), -1).Error(), "hang") }, limit, time.Millisecond)
}

func TestDNSAPILookup(t *testing.T) {
	const a, cname, mx = dns.TypeA, dns.TypeCNAME, dns.TypeMX
	for name, tc := range map[string]struct {
		qtype   uint16
		status  uint32
		records string // of Windows
		want    string
		err     error
	}{
		"records":            {a, 0, "Host.test. 7 A 10.0.0.1", "host.test. 7 IN A 10.0.0.1", nil},
		"success, but none":  {a, 0, "", "", nil},
		"none":               {a, 9501, "", "", nil},
		"none in the cache":  {a, 9701, "", "", nil},
		"none, with the SOA": {a, 9501, "test. 7 SOA a. b. 1 2 3 4 5", "", nil},
		"no name":            {a, 9003, "", "", nameserver.ErrNoName},
		"no name locally":    {a, 9714, "", "", nameserver.ErrNoName},
		"not a name":         {a, 123, "", "", errors.ErrUnsupported},
		"odd characters":     {a, 9560, "", "", errors.ErrUnsupported},
		"not implemented":    {a, 9004, "", "", errors.ErrUnsupported},
		"chain out of order": {a, 0, "C.test. 5 A 10.0.0.1\nb.test. 6 CNAME c.test.\nhost.test. 7 CNAME b.test.", "host.test. 7 IN CNAME b.test.|b.test. 6 IN CNAME c.test.|c.test. 5 IN A 10.0.0.1", nil},
		"loop":               {a, 0, "host.test. 7 CNAME b.test.\nb.test. 6 CNAME host.test.", "host.test. 7 IN CNAME b.test.|b.test. 6 IN CNAME host.test.", nil},
		"the alias alone":    {cname, 0, "host.test. 7 CNAME b.test.\nb.test. 6 CNAME c.test.", "host.test. 7 IN CNAME b.test.", nil},
		"a neighbour":        {a, 0, "host.local. 7 A 10.0.0.1", "host.test. 7 IN A 10.0.0.1", nil},
		"a strange alias":    {a, 0, "host.test. 7 CNAME b.test.\nB-1.test. 6 A 10.0.0.1", "host.test. 7 IN CNAME b.test.|b.test. 6 IN A 10.0.0.1", nil},
		"more than asked":    {mx, 0, "host.test. 7 MX 1 m.test.\nm.test. 7 A 10.0.0.1", "host.test. 7 IN MX 1 m.test.", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var rrs []dns.RR
			for line := range strings.Lines(tc.records) {
				rr, err := dns.NewRR(line)
				require.NoError(t, err)
				rrs = append(rrs, rr)
			}
			lookup := nameserver.DNSAPILookup(func(_ context.Context, name string, qtype uint16) ([]dns.RR, uint32) {
				require.Equal(t, "host.test", name, "the hosts file of Windows has no final dots")
				require.Equal(t, tc.qtype, qtype)
				return rrs, tc.status
			})
			got, err := lookup(t.Context(), dns.Question{Name: "host.test.", Qtype: tc.qtype, Qclass: dns.ClassINET})
			require.ErrorIs(t, err, tc.err)
			require.Equal(t, tc.want, strings.Join(texts(got), "|"))
		})
	}
}

func TestDNSAPILookupErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	lookup := nameserver.DNSAPILookup(func(context.Context, string, uint16) ([]dns.RR, uint32) { return nil, 9002 })
	q := dns.Question{Name: "host.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
	_, err := lookup(ctx, q)
	require.ErrorContains(t, err, "net helpmsg 9002")
	require.NotErrorIs(t, err, errors.ErrUnsupported)
	require.NotErrorIs(t, err, nameserver.ErrNoName)
	cancel()
	_, err = lookup(ctx, q)
	require.ErrorIs(t, err, context.Canceled, "what was cancelled failed for that")
	q.Qtype = dns.TypeHTTPS
	_, err = lookup(t.Context(), q)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
