// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/guestswitch"
)

func TestLeaseConfiguresTheInterfaceAndTheEndUndoesIt(t *testing.T) {
	for name, c := range map[string]struct{ tap, lease, want int }{
		"no MTU":             {0, 0, 1500},
		"1500":               {0, 1500, 1500},
		"3986":               {0, 3986, 3986},
		"65000":              {0, 65000, 65000},
		"more than possible": {0, 65535, 65521},
		"nonsense":           {0, 20, 1500},
		"fixed":              {1400, 3986, 1400},
	} {
		t.Run(name, func(t *testing.T) {
			resolv := filepath.Join(t.TempDir(), "resolv.conf")
			require.NoError(t, os.WriteFile(resolv, []byte("nameserver 9.9.9.9\n"), 0o640))
			r, conn := start(t, &guestswitch.Guest{Tap: guestswitch.Tap{MTU: c.tap}, ResolvConf: resolv})
			mods := []dhcpv4.Modifier{dhcpv4.WithDomainSearchList("rancher-desktop.internal", "bad\nname", "lan")}
			if c.lease != 0 {
				mods = append(mods, option(26, byte(c.lease>>8), byte(c.lease)))
			}
			h := serve(t, conn, leases(guestAddr, time.Hour, mods...))

			lease := r.wait(guestswitch.Leased).Lease
			require.Equal(t, guestAddr, lease.Addr)
			require.Equal(t, gateway, lease.Router)
			require.Equal(t, []netip.Addr{gateway}, lease.DNS)
			require.Equal(t, gateway, lease.Server)
			require.Equal(t, time.Hour, lease.Duration)
			require.Equal(t, lease, r.wait(guestswitch.Configured).Lease)

			eth := r.ns.link("eth0")
			require.Equal(t, c.want, eth.MTU)
			require.Equal(t, net.HardwareAddr(guestMAC[:]), eth.HardwareAddr)
			require.Equal(t, 4000, eth.TxQLen)
			require.NotZero(t, eth.Flags&net.FlagUp)
			require.NotZero(t, r.ns.link("lo").Flags&net.FlagUp)
			require.Equal(t, []string{guestAddr.String()}, r.ns.addrs())
			require.Equal(t, []string{gateway.String()}, r.ns.gateways())
			is, err := os.ReadFile(resolv)
			require.NoError(t, err)
			require.Equal(t, "search rancher-desktop.internal lan\nnameserver 192.168.127.1\n", string(is))

			r.stop()
			require.Equal(t, guestAddr.Addr().AsSlice(), []byte(h.waitAsked(dhcpv4.MessageTypeRelease).ClientIPAddr.To4()))
			is, err = os.ReadFile(resolv)
			require.NoError(t, err)
			require.Equal(t, "nameserver 9.9.9.9\n", string(is))
			info, err := os.Stat(resolv)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o640), info.Mode())
			left, err := os.ReadDir(filepath.Dir(resolv))
			require.NoError(t, err)
			require.Len(t, left, 1)
		})
	}
}

func TestRouterOutsideTheSubnet(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{})
	serve(t, conn, leases(netip.MustParsePrefix("10.1.2.3/32"), time.Hour))
	r.wait(guestswitch.Configured)
	require.Equal(t, []string{gateway.String()}, r.ns.gateways())
	r.stop()
}

func TestResolvConfIsRestoredToWhatItWas(t *testing.T) {
	for name, c := range map[string]struct {
		before func(path string) error
		after  func(t *testing.T, path string)
	}{
		"nothing": {
			func(string) error { return nil },
			func(t *testing.T, path string) { require.NoFileExists(t, path) },
		},
		"a symbolic link": {
			func(path string) error { return os.Symlink("/run/elsewhere", path) },
			func(t *testing.T, path string) {
				target, err := os.Readlink(path)
				require.NoError(t, err)
				require.Equal(t, "/run/elsewhere", target)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			require.NoError(t, c.before(path))
			r, conn := start(t, &guestswitch.Guest{ResolvConf: path})
			serve(t, conn, leases(guestAddr, time.Hour, dhcpv4.WithOption(dhcpv4.OptDomainName("lan"))))
			r.wait(guestswitch.Configured)
			is, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "search lan\nnameserver 192.168.127.1\n", string(is))
			r.stop()
			c.after(t, path)
		})
	}
	t.Run("changed by somebody else: left alone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		r, conn := start(t, &guestswitch.Guest{ResolvConf: path})
		serve(t, conn, leases(guestAddr, time.Hour))
		r.wait(guestswitch.Configured)
		require.NoError(t, os.WriteFile(path, []byte("nameserver 1.2.3.4\n"), 0o644))
		r.stop()
		is, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "nameserver 1.2.3.4\n", string(is))
	})
}

func TestRenewalKeepsAndChangesTheAddress(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{})
	h := serve(t, conn, leases(guestAddr, 2*time.Second))
	r.wait(guestswitch.Configured)
	require.Equal(t, guestAddr, r.wait(guestswitch.Renewed).Lease.Addr)
	require.Equal(t, []string{guestAddr.String()}, r.ns.addrs())
	renewal := h.waitAsked(dhcpv4.MessageTypeRequest)
	for renewal.ClientIPAddr.IsUnspecified() { // the first is that of the handshake
		renewal = h.waitAsked(dhcpv4.MessageTypeRequest)
	}
	require.Equal(t, guestAddr.Addr().String(), renewal.ClientIPAddr.String())

	other := netip.MustParsePrefix("192.168.127.77/24")
	h.change(leases(other, time.Hour))
	require.Equal(t, other, r.wait(guestswitch.Renewed).Lease.Addr)
	require.Equal(t, []string{other.String()}, r.ns.addrs())
	require.Equal(t, []string{gateway.String()}, r.ns.gateways())
	r.stop()
}

// A server may leave out of a renewal what it has said before.
func TestRenewalWithTheTimesOnly(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{})
	h := serve(t, conn, leases(guestAddr, 2*time.Second))
	r.wait(guestswitch.Configured)
	h.change(func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		return reply(m, dhcpv4.MessageTypeAck, dhcpv4.WithYourIP(guestAddr.Addr().AsSlice()), dhcpv4.WithLeaseTime(3600))
	})
	lease := r.wait(guestswitch.Renewed).Lease
	require.Equal(t, guestAddr, lease.Addr)
	require.Equal(t, gateway, lease.Router)
	require.Equal(t, []string{gateway.String()}, r.ns.gateways())
	r.stop()
}

func TestNakStartsOver(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{})
	h := serve(t, conn, leases(guestAddr, 2*time.Second))
	r.wait(guestswitch.Configured)
	other := netip.MustParsePrefix("192.168.127.99/24")
	h.change(func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		if m.MessageType() == dhcpv4.MessageTypeRequest && !m.ClientIPAddr.IsUnspecified() {
			return reply(m, dhcpv4.MessageTypeNak)
		}
		return leases(other, time.Hour)(m)
	})
	lost := r.wait(guestswitch.LeaseLost)
	require.Equal(t, guestAddr, lost.Lease.Addr)
	require.ErrorContains(t, lost.Err, "Nak")
	require.Equal(t, other, r.wait(guestswitch.Configured).Lease.Addr)
	require.Equal(t, []string{other.String()}, r.ns.addrs())
	r.stop()
}

func TestExpiryTakesTheAddressAndIsReported(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{})
	granting := leases(guestAddr, time.Second)
	h := serve(t, conn, granting)
	h.change(func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { // once
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			h.answer = silent
		}
		return granting(m)
	})
	r.wait(guestswitch.Configured)
	require.NoError(t, <-r.reports)
	lost := r.wait(guestswitch.LeaseLost)
	require.ErrorContains(t, lost.Err, "ran out")
	require.Equal(t, lost.Err, <-r.reports)
	require.Empty(t, r.ns.addrs())
	require.Empty(t, r.ns.gateways())

	h.change(leases(guestAddr, time.Hour))
	r.wait(guestswitch.Configured)
	require.NoError(t, <-r.reports)
	require.Equal(t, []string{guestAddr.String()}, r.ns.addrs())
	r.stop()
}

func TestAnotherDefaultRouteAndAddressStay(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{})
	h := serve(t, conn, silent)
	r.wait(guestswitch.Connected)
	r.ns.ip("tuntap", "add", "other", "mode", "tap")
	r.ns.ip("addr", "add", "10.9.0.1/24", "dev", "other")
	r.ns.ip("addr", "add", "10.9.9.9/24", "dev", "eth0")
	r.ns.ip("link", "set", "other", "up")
	r.ns.ip("route", "add", "default", "via", "10.9.0.2")
	h.change(leases(guestAddr, time.Second))
	r.wait(guestswitch.Configured)
	require.Equal(t, []string{"10.9.0.2", gateway.String()}, r.ns.gateways())
	h.change(silent)
	require.Equal(t, []string{"10.9.9.9/24", guestAddr.String()}, r.ns.addrs())
	r.wait(guestswitch.LeaseLost)
	require.Equal(t, []string{"10.9.9.9/24"}, r.ns.addrs())
	require.Equal(t, []string{"10.9.0.2"}, r.ns.gateways())
	r.cancel()
	require.NoError(t, r.end())
	require.Contains(t, r.ns.state(), "10.9.0.1")
}

func TestStaticAndNoDHCP(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	r, conn := start(t, &guestswitch.Guest{ResolvConf: resolv, DHCP: guestswitch.StaticDHCP(guestswitch.Lease{
		Addr: guestAddr, Router: gateway, MTU: 3986, DNS: []netip.Addr{gateway}, Search: []string{"a.internal"},
	})})
	serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	require.Equal(t, []string{guestAddr.String()}, r.ns.addrs())
	require.Equal(t, []string{gateway.String()}, r.ns.gateways())
	require.Equal(t, 3986, r.ns.link("eth0").MTU)
	require.FileExists(t, resolv)
	r.stop()
	require.NoFileExists(t, resolv)

	r, conn = start(t, &guestswitch.Guest{DHCP: guestswitch.NoDHCP()})
	serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	require.Empty(t, r.ns.addrs())
	r.stop()
}
