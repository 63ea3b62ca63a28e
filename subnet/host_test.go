// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/subnet"
)

// hostPrefixes skips what cannot be done here; the remedy is another machine.
func hostPrefixes(t *testing.T) []netip.Prefix {
	t.Helper()
	host, err := subnet.HostPrefixes()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("run this on Linux, Windows or macOS: %v", err)
	}
	require.NoError(t, err)
	return host
}

func TestHostPrefixesOfThisHost(t *testing.T) {
	host := hostPrefixes(t)
	require.True(t, slices.IsSortedFunc(host, netip.Prefix.Compare))
	require.Len(t, slices.Compact(slices.Clone(host)), len(host), "no duplicates")
	for _, p := range host {
		require.True(t, p.Addr().Is4(), p)
		require.Equal(t, p.Masked(), p, "canonical")
		require.GreaterOrEqual(t, p.Bits(), 8, "routes shorter than /8 are left out")
	}
	require.True(t, slices.ContainsFunc(host, func(p netip.Prefix) bool { return p.Contains(netip.AddrFrom4([4]byte{127, 0, 0, 1})) }), host)
	addrs, err := net.InterfaceAddrs()
	if runtime.GOOS != "windows" { // wine lists no interfaces, and then there are none
		require.NoError(t, err)
	}
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if ip = ip.Unmap(); ip.Is4() {
			require.True(t, slices.ContainsFunc(host, func(p netip.Prefix) bool { return p.Contains(ip) }), "%v in %v", ip, host)
		}
	}
}

func TestPickTakesWhatIsFreeHere(t *testing.T) {
	host := hostPrefixes(t)
	var candidates []subnet.Subnet
	for i := range 128 {
		candidates = append(candidates,
			valid(t, fmt.Sprintf("10.%d.0.0/24", 2*i)),
			valid(t, fmt.Sprintf("192.168.%d.0/24", 2*i)),
			valid(t, fmt.Sprintf("100.64.%d.0/24", 2*i)))
	}
	got, err := subnet.Pick(candidates...)
	require.NoError(t, err)
	require.Empty(t, got.Overlaps(host...))
	for _, c := range candidates[:slices.Index(candidates, got)] {
		require.NotEmpty(t, c.Overlaps(host...), "%v comes first", c)
	}
}

func TestPickRefusesTheZeroSubnet(t *testing.T) {
	_, err := subnet.Pick(subnet.Default, subnet.Subnet{})
	require.ErrorIs(t, err, subnet.ErrInvalid)
	require.ErrorContains(t, err, "candidate 2")
}

func TestHostPrefixesWhereRoutesAreUnknown(t *testing.T) {
	if slices.Contains([]string{"linux", "windows", "darwin"}, runtime.GOOS) {
		_, err := subnet.HostPrefixes()
		require.NotErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	_, err := subnet.Pick()
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
