// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the tables of Windows and macOS mean is decided in portable code; only the
// system calls that read them are left to the platforms.
func TestNetworks(t *testing.T) {
	v4 := func(a string, bits int) netip.Prefix { return netip.PrefixFrom(netip.MustParseAddr(a), bits) }
	for name, tc := range map[string]struct {
		addrs, dsts []netip.Prefix
		want        string
	}{
		"nothing": {},
		"Windows": {
			[]netip.Prefix{v4("127.0.0.1", 8), v4("192.168.1.7", 24), v4("10.8.0.6", 32)},
			[]netip.Prefix{
				v4("0.0.0.0", 0), v4("127.0.0.0", 8), v4("127.0.0.1", 32), v4("192.168.1.0", 24), v4("192.168.1.255", 32),
				v4("10.8.0.0", 16), v4("224.0.0.0", 4), v4("0.0.0.0", 1), v4("128.0.0.0", 1),
			},
			"10.8.0.0/16 10.8.0.6/32 127.0.0.0/8 127.0.0.1/32 192.168.1.0/24 192.168.1.255/32",
		},
		"an address without a length":   {addrs: []netip.Prefix{v4("169.254.3.4", 255)}, want: "169.254.3.4/32"},
		"a route without a length":      {dsts: []netip.Prefix{v4("10.0.0.0", 255), v4("10.1.0.0", -1)}},
		"an address in a huge network":  {addrs: []netip.Prefix{v4("10.1.2.3", 0), v4("10.1.2.4", 7)}, want: "10.1.2.3/32 10.1.2.4/32"},
		"bits behind the length":        {dsts: []netip.Prefix{v4("10.1.2.3", 16)}, want: "10.1.0.0/16"},
		"the same from both":            {[]netip.Prefix{v4("10.1.2.3", 16)}, []netip.Prefix{v4("10.1.0.0", 16)}, "10.1.0.0/16"},
		"IPv6, and nothing":             {[]netip.Prefix{v4("fd00::1", 64), {}}, []netip.Prefix{v4("fd00::", 64), {}}, ""},
		"IPv4 in IPv6, with its length": {addrs: []netip.Prefix{v4("::ffff:10.1.2.3", 112)}, want: "10.1.0.0/16"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range networks(tc.addrs, tc.dsts) {
				got = append(got, p.String())
			}
			require.Equal(t, tc.want, strings.Join(got, " "))
		})
	}
}

func TestBSDRoute(t *testing.T) {
	for name, tc := range map[string]struct {
		dst  [4]byte
		mask []byte
		host bool
		want string
	}{
		"network":               {dst: [4]byte{10, 8, 0, 0}, mask: []byte{255, 255, 0, 0}, want: "10.8.0.0/16"},
		"host":                  {dst: [4]byte{10, 8, 0, 1}, host: true, want: "10.8.0.1/32"},
		"host with a stub mask": {dst: [4]byte{10, 8, 0, 1}, mask: make([]byte, 4), host: true, want: "10.8.0.1/32"},
		"default":               {mask: make([]byte, 4), want: "0.0.0.0/0"},
		"default, no mask":      {want: "0.0.0.0/0"},
		"class A":               {dst: [4]byte{10}, want: "10.0.0.0/8"},
		"class B":               {dst: [4]byte{172, 16}, want: "172.16.0.0/16"},
		"class C":               {dst: [4]byte{192, 168, 1}, want: "192.168.1.0/24"},
		"multicast":             {dst: [4]byte{224}, mask: []byte{240, 0, 0, 0}, want: "224.0.0.0/4"},
		"holes in the mask":     {dst: [4]byte{10}, mask: []byte{255, 0, 255, 0}, want: "invalid Prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, bsdRoute(tc.dst, tc.mask, tc.host).String())
		})
	}
}
