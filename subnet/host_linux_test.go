// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet_test

import (
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/subnet"
)

// inNewNetNS moves the goroutine of the test into an empty network namespace. Its
// thread is never unlocked, so the namespace ends with the goroutine.
func inNewNetNS(t *testing.T) (lo netlink.Link) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("CI") != "" {
			require.NoError(t, err, "CI must run this as root")
		}
		t.Skipf("run this as root (sudo -E go test), a network namespace is needed: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(lo))
	return lo
}

func ipNet(cidr string) *net.IPNet {
	ip, n, err := net.ParseCIDR(cidr)
	if err != nil {
		panic(err)
	}
	n.IP = ip
	return n
}

// FAILURES 32: the networks that a LAN or VPN brings to this host are seen, and
// kept clear of.
func TestPickKeepsClearOfAddressesAndRoutes(t *testing.T) {
	lo := inNewNetNS(t)
	fresh, err := subnet.HostPrefixes()
	require.NoError(t, err)
	require.Subset(t, fresh, prefixes("127.0.0.0/8"))
	got, err := subnet.Pick()
	require.NoError(t, err)
	require.Equal(t, subnet.Default, got, "without candidates")

	for _, a := range []*netlink.Addr{
		{IPNet: ipNet("192.168.126.9/23")},                          // a LAN
		{IPNet: ipNet("10.99.0.1/32"), Peer: ipNet("10.98.0.1/32")}, // point to point
		{IPNet: ipNet("172.20.1.1/7")},                              // counts alone
		{IPNet: ipNet("fd00::1/64")},                                // cannot overlap
	} {
		require.NoError(t, netlink.AddrAdd(lo, a), "%v", a)
	}
	for _, r := range []netlink.Route{
		{Dst: ipNet("10.44.0.0/16")},
		{Dst: ipNet("10.45.0.0/16"), Table: 1234}, // a VPN with its own table
		{Dst: ipNet("100.64.0.0/10"), Type: unix.RTN_UNREACHABLE},
		{Dst: ipNet("0.0.0.0/0")},
		{Dst: ipNet("0.0.0.0/1")},   // the default route in halves
		{Dst: ipNet("128.0.0.0/1")}, // as VPNs write it
		{Dst: ipNet("0.0.0.0/0"), Table: 1234},
	} {
		if r.Type == 0 {
			r.LinkIndex, r.Scope = lo.Attrs().Index, netlink.SCOPE_LINK
		}
		require.NoError(t, netlink.RouteAdd(&r), "%v", r)
	}
	host, err := subnet.HostPrefixes()
	require.NoError(t, err)
	require.Subset(t, host, prefixes("127.0.0.0/8", "192.168.126.0/23", "10.44.0.0/16", "10.45.0.0/16",
		"10.99.0.1/32", "10.98.0.1/32", "172.20.1.1/32", "100.64.0.0/10"))
	for _, p := range host {
		require.GreaterOrEqual(t, p.Bits(), 8)
		require.True(t, p.Addr().Is4())
	}

	lan, vpn, shared, spare := subnet.Default, valid(t, "10.45.6.0/24"), valid(t, "100.100.0.0/16"), valid(t, "172.20.2.0/24")
	got, err = subnet.Pick(lan, vpn, shared, spare, valid(t, "172.20.3.0/24"))
	require.NoError(t, err)
	require.Equal(t, spare, got, "the first that is free")

	_, err = subnet.Pick(lan, vpn, shared)
	require.ErrorIs(t, err, subnet.ErrOverlap)
	require.EqualError(t, err, "subnet: every candidate overlaps a network of this host: "+
		"192.168.127.0/24 with 192.168.126.0/23; 10.45.6.0/24 with 10.45.0.0/16; 100.100.0.0/16 with 100.64.0.0/10; "+
		"choose another private network, or leave the VPN or LAN that has it")
	_, err = subnet.Pick()
	require.ErrorIs(t, err, subnet.ErrOverlap)
	require.ErrorContains(t, err, "192.168.127.0/24 with 192.168.126.0/23;")
}

// More routes than one answer of the kernel holds.
func TestHostPrefixesReadsTheWholeTable(t *testing.T) {
	lo := inNewNetNS(t)
	const n = 2000
	for i := range n {
		require.NoError(t, netlink.RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: net.IPv4(10, byte(i>>8), byte(i), 0), Mask: net.CIDRMask(24, 32)},
		}))
	}
	host, err := subnet.HostPrefixes()
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(host), n)
}
