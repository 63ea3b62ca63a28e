// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The system call is in platform_windows.go; what it means is tested everywhere.
func TestWindowsHost(t *testing.T) {
	addrs := func(texts ...string) (as []netip.Addr) {
		for _, s := range texts {
			as = append(as, netip.MustParseAddr(s))
		}
		return as
	}
	lan := adapter{up: true, metric4: 25, metric6: 30, servers: addrs("192.168.1.1", "fe80::1%12", "::ffff:192.168.1.2"), suffixes: []string{"lan", ""}}
	vpn := adapter{up: true, metric4: 1, metric6: 1, servers: addrs("10.8.0.1"), suffixes: []string{"corp.test.", "LAN"}}
	for name, tc := range map[string]struct {
		adapters []adapter
		servers  []netip.Addr
		search   []string
	}{
		"none":              {},
		"one":               {[]adapter{lan}, addrs("192.168.1.1", "192.168.1.2", "fe80::1%12"), []string{"lan"}},
		"the VPN is first":  {[]adapter{lan, vpn}, addrs("10.8.0.1", "192.168.1.1", "192.168.1.2", "fe80::1%12"), []string{"corp.test", "LAN"}},
		"down":              {[]adapter{{servers: addrs("10.0.0.1"), suffixes: []string{"x"}}, vpn}, addrs("10.8.0.1"), []string{"corp.test", "LAN"}},
		"placeholders":      {[]adapter{{up: true, servers: addrs("fec0:0:0:ffff::1%1", "fec0:0:0:ffff::2", "0.0.0.0", "::", "224.0.0.251")}}, nil, nil},
		"the same twice":    {[]adapter{vpn, vpn}, addrs("10.8.0.1"), []string{"corp.test", "LAN"}},
		"equals keep order": {[]adapter{{up: true, servers: addrs("10.0.0.2")}, {up: true, servers: addrs("10.0.0.1")}}, addrs("10.0.0.2", "10.0.0.1"), nil},
		"loopback":          {[]adapter{{up: true, loopback: true, servers: addrs("10.0.0.1"), suffixes: []string{"x"}}}, nil, nil},
		"local proxy":       {[]adapter{{up: true, servers: addrs("127.0.0.1")}}, addrs("127.0.0.1"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			list := windowsHost{adapters: tc.adapters}.serverList()
			require.Equal(t, tc.servers, list.servers)
			require.Equal(t, tc.search, list.search)
			require.Positive(t, list.attempts)
		})
	}
}

func TestWindowsSearchList(t *testing.T) {
	lan := adapter{up: true, metric4: 25, metric6: 25, suffixes: []string{"lan"}}
	vpn := adapter{up: true, metric4: 1, metric6: 1, suffixes: []string{"vpn.test", "more.vpn.test"}}
	for name, tc := range map[string]struct {
		host windowsHost
		want []string
	}{
		"none":           {},
		"adapters":       {windowsHost{adapters: []adapter{lan, vpn}}, []string{"vpn.test", "more.vpn.test", "lan"}},
		"a domain":       {windowsHost{adapters: []adapter{lan}, domain: "corp.test"}, []string{"corp.test", "lan"}},
		"the domain too": {windowsHost{adapters: []adapter{lan}, domain: "LAN"}, []string{"LAN"}},
		"global":         {windowsHost{adapters: []adapter{lan}, domain: "corp.test", globalSearch: "a.test,b.test."}, []string{"a.test", "b.test"}},
		"policy":         {windowsHost{adapters: []adapter{lan}, globalSearch: "a.test", policySearch: " c.test , d.test"}, []string{"c.test", "d.test"}},
		"empty policy":   {windowsHost{adapters: []adapter{lan}, globalSearch: "a.test", policySearch: " ,, "}, []string{"a.test"}},
		"all are empty":  {windowsHost{adapters: []adapter{lan}, globalSearch: ",", policySearch: "."}, []string{"lan"}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, tc.host.serverList().search) })
	}
}

func TestAdaptersAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads, fail := 0, true
		src := &adapterSource{read: func() (windowsHost, error) {
			reads++
			if fail {
				return windowsHost{}, errors.New("no adapters")
			}
			return windowsHost{adapters: []adapter{{up: true, servers: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(reads)})}}}}, nil
		}}
		first := func() string {
			list, err := src.load()
			require.Equal(t, fail, err != nil)
			if len(list.servers) == 0 {
				return ""
			}
			return list.servers[0].String()
		}
		require.Empty(t, first())
		fail = false
		require.Equal(t, "10.0.0.2", first(), "a failure is not kept")
		require.Equal(t, "10.0.0.2", first())
		<-time.After(adapterTTL) // of the bubble
		require.Equal(t, "10.0.0.3", first())
		<-time.After(adapterTTL) // of the bubble
		fail = true
		require.Equal(t, "10.0.0.3", first(), "the last one known")
	})
}

func TestTXTStrings(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                  {""},
		`a "b" \`:                           {`a \034b\034 \092`},
		"tab\t, \u00e9":                     {`tab\009, \195\169`},
		strings.Repeat("x", 300):            {strings.Repeat("x", 255), strings.Repeat("x", 45)},
		strings.Repeat("x", 254) + "\u00e9": {strings.Repeat("x", 254) + `\195`, `\169`},
	} {
		require.Equal(t, want, txtStrings(text), text)
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.1\nsearch a b\noptions rotate timeout:3 attempts:9 ndots:\n"))
	f.Add([]byte("nameserver fe80::1%eth0 # x\n;\n\x00\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list := parseResolvConf(text)
		require.LessOrEqual(t, len(list.servers), maxServers)
		require.LessOrEqual(t, len(list.search), maxSearch)
		require.True(t, 1 <= list.attempts && list.attempts <= 5)
		require.True(t, time.Second <= list.timeout && list.timeout <= 30*time.Second)
		for _, s := range list.servers {
			require.True(t, s.IsValid())
		}
	})
}
