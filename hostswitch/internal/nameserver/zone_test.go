// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver_test

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
)

var zones = []nameserver.Zone{
	{Name: "internal.", Records: []nameserver.Record{{Name: "docker", IP: ip("192.168.127.99")}}},
	{Name: "docker.internal", Records: []nameserver.Record{
		{Name: "gateway", IP: ip("192.168.127.1")},
		{Name: "Host", IP: ip("192.168.127.254")},
		{Name: "a.deep", IP: ip("192.168.127.3")},
		{Regexp: regexp.MustCompile(`^node-[0-9]+$`), IP: ip("192.168.127.4")},
		{Regexp: regexp.MustCompile(`^Upper$`), IP: ip("192.168.127.5")},
		{Name: "gateway", IP: ip("192.168.127.98")}, // never matches
		{Name: `s\112ash`, IP: ip("192.168.127.6")}, // "spash", escaped
	}},
	{Name: "crc.testing.", DefaultIP: ip("192.168.127.2"), Records: []nameserver.Record{{Name: "gateway", IP: ip("192.168.127.1")}}},
	{Name: "apex.test.", Records: []nameserver.Record{{IP: ip("192.168.127.7")}}},
}

// nowhere is a Resolver that says where a query went.
var nowhere = resolverFunc(func(_ context.Context, _ string, q []byte) ([]byte, error) {
	m := new(dns.Msg)
	if err := m.Unpack(q); err != nil {
		return nil, err
	}
	m.SetRcode(m.Copy(), dns.RcodeYXDomain)
	return m.Pack()
})

func TestZones(t *testing.T) {
	const forwarded = "YXDOMAIN"
	for _, tc := range []struct {
		name   string
		qtype  uint16
		rcode  string
		answer string // the data of the only answer
		zone   string // of the SOA in the authority section
	}{
		{name: "gateway.docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.1"},
		{name: "gAteWay.DOCKER.internal.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.1"},
		{name: "host.docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.254"},
		{name: "host.docker.internal.", qtype: dns.TypeANY, rcode: "NOERROR", answer: "192.168.127.254"},
		{name: "host.docker.internal.", qtype: dns.TypeAAAA, rcode: "NOERROR", zone: "docker.internal."},
		{name: "host.docker.internal.", qtype: dns.TypeHTTPS, rcode: "NOERROR", zone: "docker.internal."},
		{name: "host.docker.internal.", qtype: 65280, rcode: "NOERROR", zone: "docker.internal."},
		{name: "nobody.docker.internal.", qtype: dns.TypeA, rcode: "NXDOMAIN", zone: "docker.internal."},
		{name: "nobody.docker.internal.", qtype: dns.TypeTXT, rcode: "NXDOMAIN", zone: "docker.internal."},
		{name: "x.host.docker.internal.", qtype: dns.TypeA, rcode: "NXDOMAIN", zone: "docker.internal."},
		{name: "a.deep.docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.3"},
		{name: "deep.docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", zone: "docker.internal."},
		{name: "eep.docker.internal.", qtype: dns.TypeA, rcode: "NXDOMAIN", zone: "docker.internal."},
		{name: "node-12.docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.4"},
		{name: "NODE-12.docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.4"},
		{name: "Upper.docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.5"},
		{name: "spash.docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.6"},
		// The longest zone wins, wherever it is in the list.
		{name: "docker.internal.", qtype: dns.TypeA, rcode: "NOERROR", zone: "docker.internal."},
		{name: "docker.internal.", qtype: dns.TypeSOA, rcode: "NOERROR", answer: "docker.internal. nobody.invalid. 1 3600 1200 604800 0"},
		{name: "docker.internal.", qtype: dns.TypeNS, rcode: "NOERROR", answer: "docker.internal."},
		{name: "internal.", qtype: dns.TypeMX, rcode: "NOERROR", zone: "internal."},
		{name: "other.internal.", qtype: dns.TypeA, rcode: "NXDOMAIN", zone: "internal."},
		{name: "gateway.crc.testing.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.1"},
		{name: "any.thing.crc.testing.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.2"},
		{name: "any.thing.crc.testing.", qtype: dns.TypeAAAA, rcode: "NOERROR", zone: "crc.testing."},
		{name: "crc.testing.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.2"},
		{name: "apex.test.", qtype: dns.TypeA, rcode: "NOERROR", answer: "192.168.127.7"},
		{name: "x.apex.test.", qtype: dns.TypeA, rcode: "NXDOMAIN", zone: "apex.test."},
		// Neighbours are not ours.
		{name: "notdocker.test.", qtype: dns.TypeA, rcode: forwarded},
		{name: "xcrc.testing.", qtype: dns.TypeA, rcode: forwarded},
		{name: `x\.crc.testing.`, qtype: dns.TypeA, rcode: forwarded},
		{name: "testing.", qtype: dns.TypeA, rcode: forwarded},
		{name: ".", qtype: dns.TypeNS, rcode: forwarded},
		// The addresses of the subnet never leave the host.
		{name: "1.127.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: "NOERROR", answer: "gateway.docker.internal."},
		{name: "254.127.168.192.IN-ADDR.ARPA.", qtype: dns.TypePTR, rcode: "NOERROR", answer: "host.docker.internal."},
		{name: "7.127.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: "NOERROR", answer: "apex.test."},
		{name: "1.127.168.192.in-addr.arpa.", qtype: dns.TypeA, rcode: "NOERROR", zone: "127.168.192.in-addr.arpa."},
		{name: "77.127.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: "NXDOMAIN", zone: "127.168.192.in-addr.arpa."},
		{name: "2.127.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: "NXDOMAIN", zone: "127.168.192.in-addr.arpa."},
		{name: "x.1.127.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: "NXDOMAIN", zone: "127.168.192.in-addr.arpa."},
		{name: "lb._dns-sd._udp.127.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: "NXDOMAIN", zone: "127.168.192.in-addr.arpa."},
		{name: "127.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: "NOERROR", zone: "127.168.192.in-addr.arpa."},
		{name: "127.168.192.in-addr.arpa.", qtype: dns.TypeNS, rcode: "NOERROR", answer: "127.168.192.in-addr.arpa."},
		{name: "168.192.in-addr.arpa.", qtype: dns.TypeSOA, rcode: forwarded},
		{name: "1.128.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: forwarded},
		{name: "001.127.168.192.in-addr.arpa.", qtype: dns.TypePTR, rcode: "NXDOMAIN", zone: "127.168.192.in-addr.arpa."},
		{name: "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.", qtype: dns.TypePTR, rcode: forwarded},
		{name: "arpa.", qtype: dns.TypePTR, rcode: forwarded},
	} {
		t.Run(dns.TypeToString[tc.qtype]+" "+tc.name, func(t *testing.T) {
			s, err := nameserver.New(nameserver.Config{Zones: zones, Subnet: netip.MustParsePrefix("192.168.127.1/24"), Resolver: nowhere})
			require.NoError(t, err)
			for _, network := range []string{"udp", "tcp"} {
				q := query(tc.name, tc.qtype)
				m := answer(t, s, network, q)
				require.Equal(t, tc.rcode, rcode(m))
				require.Equal(t, q.Id, m.Id)
				require.Equal(t, q.Question, m.Question, "the case of the question is kept")
				if tc.rcode == forwarded {
					continue
				}
				require.True(t, m.Authoritative && m.Response && m.RecursionAvailable && m.RecursionDesired)
				if tc.answer != "" {
					require.Len(t, m.Answer, 1)
					h := m.Answer[0].Header()
					require.Equal(t, tc.name, h.Name)
					require.Zero(t, h.Ttl)
					require.Equal(t, tc.answer, strings.TrimPrefix(m.Answer[0].String(), h.String()))
					require.Empty(t, m.Ns)
				} else {
					require.Empty(t, m.Answer)
					require.Len(t, m.Ns, 1)
					require.Equal(t, dns.TypeSOA, m.Ns[0].Header().Rrtype)
					require.Equal(t, tc.zone, m.Ns[0].Header().Name)
				}
			}
		})
	}
}

func TestRootZoneTakesAddressesOnly(t *testing.T) {
	for _, name := range []string{"", "."} {
		s, err := nameserver.New(nameserver.Config{Resolver: nowhere, Subnet: netip.MustParsePrefix("10.0.0.0/8"), Zones: append([]nameserver.Zone{
			{Name: name, DefaultIP: ip("10.0.0.2"), Records: []nameserver.Record{{Name: "a.b", IP: ip("10.0.0.3")}}},
		}, zones...)})
		require.NoError(t, err)
		require.Equal(t, []string{"a.b. 0 IN A 10.0.0.3"}, texts(answer(t, s, "udp", query("a.b.", dns.TypeA)).Answer))
		require.Equal(t, []string{"any.test. 0 IN A 10.0.0.2"}, texts(answer(t, s, "udp", query("any.test.", dns.TypeA)).Answer))
		require.Equal(t, []string{". 0 IN A 10.0.0.2"}, texts(answer(t, s, "udp", query(".", dns.TypeA)).Answer))
		require.Equal(t, "NOERROR", rcode(answer(t, s, "udp", query("any.test.", dns.TypeAAAA))))
		require.Equal(t, "YXDOMAIN", rcode(answer(t, s, "udp", query("any.test.", dns.TypeMX))))
		require.Equal(t, "NXDOMAIN", rcode(answer(t, s, "udp", query("any.docker.internal.", dns.TypeA))))
		require.Equal(t, []string{"3.0.0.10.in-addr.arpa. 0 IN PTR a.b."}, texts(answer(t, s, "udp", query("3.0.0.10.in-addr.arpa.", dns.TypePTR)).Answer))
	}
	s, err := nameserver.New(nameserver.Config{Resolver: nowhere, Zones: []nameserver.Zone{{Name: "."}}})
	require.NoError(t, err)
	require.Equal(t, "NXDOMAIN", rcode(answer(t, s, "udp", query("any.test.", dns.TypeA))))
}

// FAILURES 32: names follow the subnet at every prefix length.
func TestReverseNamesOfEverySubnet(t *testing.T) {
	for _, tc := range []struct{ subnet, inside, outside string }{
		{"10.0.0.0/8", "9.8.7.10.in-addr.arpa.", "9.8.7.11.in-addr.arpa."},
		{"100.64.0.0/10", "9.8.100.100.in-addr.arpa.", "9.8.128.100.in-addr.arpa."},
		{"172.16.0.0/12", "9.8.31.172.in-addr.arpa.", "9.8.32.172.in-addr.arpa."},
		{"192.168.126.0/23", "9.127.168.192.in-addr.arpa.", "9.128.168.192.in-addr.arpa."},
		{"192.168.126.0/23", "127.168.192.in-addr.arpa.", "168.192.in-addr.arpa."},
		{"192.168.127.64/26", "65.127.168.192.in-addr.arpa.", "1.127.168.192.in-addr.arpa."},
		{"192.168.127.8/29", "9.127.168.192.in-addr.arpa.", "127.168.192.in-addr.arpa."},
	} {
		s, err := nameserver.New(nameserver.Config{Resolver: nowhere, Subnet: netip.MustParsePrefix(tc.subnet)})
		require.NoError(t, err)
		require.NotEqual(t, "YXDOMAIN", rcode(answer(t, s, "udp", query(tc.inside, dns.TypePTR))), tc.subnet)
		require.Equal(t, "YXDOMAIN", rcode(answer(t, s, "udp", query(tc.outside, dns.TypePTR))), tc.subnet)
	}
}

func TestAddZoneMergesLikeGvisorTapVsock(t *testing.T) {
	s, err := nameserver.New(nameserver.Config{})
	require.NoError(t, err)
	require.Empty(t, s.Zones())
	rec := func(name, addr string) nameserver.Record { return nameserver.Record{Name: name, IP: ip(addr)} }
	add := func(z nameserver.Zone) { require.NoError(t, s.AddZone(z)) }

	add(nameserver.Zone{Name: "zone.test.", DefaultIP: ip("10.0.0.1"), Records: []nameserver.Record{rec("a", "10.0.0.2"), rec("b", "10.0.0.3")}})
	add(nameserver.Zone{Name: "Zone.Test", Records: []nameserver.Record{rec("c", "10.0.0.4"), rec("a", "10.0.0.5")}})
	add(nameserver.Zone{Name: "other.test."})
	require.Equal(t, []nameserver.Zone{
		{Name: "Zone.Test", Records: []nameserver.Record{rec("c", "10.0.0.4"), rec("a", "10.0.0.5"), rec("b", "10.0.0.3")}},
		{Name: "other.test."},
	}, s.Zones())
	require.Equal(t, []string{"a.zone.test. 0 IN A 10.0.0.5"}, texts(answer(t, s, "udp", query("a.zone.test.", dns.TypeA)).Answer))
	require.Equal(t, "NXDOMAIN", rcode(answer(t, s, "udp", query("gone.zone.test.", dns.TypeA))), "the new DefaultIP counts, which is none")

	s.Zones()[0].Records[0].IP = ip("10.9.9.9")
	require.Equal(t, ip("10.0.0.4"), s.Zones()[0].Records[0].IP, "Zones is a copy")
}

func TestZonesAreBounded(t *testing.T) {
	s, err := nameserver.New(nameserver.Config{})
	require.NoError(t, err)
	same := nameserver.Zone{Name: "same.test.", Records: []nameserver.Record{
		{Name: "a", IP: ip("10.0.0.2")}, {Regexp: regexp.MustCompile("b+"), IP: ip("10.0.0.3")},
	}}
	for range 100 {
		require.NoError(t, s.AddZone(same))
	}
	require.Len(t, s.Zones()[0].Records, 2, "the same zone again and again takes no more room")

	many := nameserver.Zone{Name: "many.test."}
	for i := range 16384 {
		many.Records = append(many.Records, nameserver.Record{Name: fmt.Sprintf("n%d", i), IP: ip("10.0.0.1")})
	}
	require.ErrorContains(t, s.AddZone(many), "full")
	require.Len(t, s.Zones(), 1)
	for i := range 1023 {
		require.NoError(t, s.AddZone(nameserver.Zone{Name: fmt.Sprintf("z%d.test.", i)}))
	}
	require.ErrorContains(t, s.AddZone(nameserver.Zone{Name: "more.test."}), "full")
}

func TestNewNamesTheField(t *testing.T) {
	record := func(r nameserver.Record) nameserver.Config {
		return nameserver.Config{Zones: []nameserver.Zone{{Name: "x."}, {Name: "y.", Records: []nameserver.Record{r}}}}
	}
	for want, cfg := range map[string]nameserver.Config{
		"Zones[0]: Name":                         {Zones: []nameserver.Zone{{Name: "a..b."}}},
		"Zones[0]: Name: \"aaa":                  {Zones: []nameserver.Zone{{Name: strings.Repeat("a", 64) + "."}}},
		"Zones[0]: DefaultIP: 2001:db8::1":       {Zones: []nameserver.Zone{{Name: "a.", DefaultIP: ip("2001:db8::1")}}},
		"Zones[1]: Records[0].IP: it is missing": record(nameserver.Record{Name: "a"}),
		"Zones[1]: Records[0].IP: ::1":           record(nameserver.Record{Name: "a", IP: ip("::1")}),
		"Zones[1]: Records[0].Name":              record(nameserver.Record{Name: "a.", IP: ip("10.0.0.1")}),
		"Subnet: 2001:db8::/64":                  {Subnet: netip.MustParsePrefix("2001:db8::/64")},
		"MaxInFlight":                            {MaxInFlight: -1},
		"MaxStreams":                             {MaxStreams: -1},
	} {
		_, err := nameserver.New(cfg)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "nameserver: ")
	}
	s, err := nameserver.New(nameserver.Config{})
	require.NoError(t, err)
	require.ErrorContains(t, s.AddZone(nameserver.Zone{Name: "a..b."}), `zone "a..b.": Name`)
	_, err = nameserver.New(record(nameserver.Record{Name: "a", IP: ip("::ffff:10.0.0.1")}))
	require.NoError(t, err, "a mapped IPv4 address, as net.IP gives them")
}
