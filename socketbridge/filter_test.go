// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"

	virtsock "github.com/linuxkit/virtsock/pkg/vsock"
	"github.com/mdlayher/vsock"
	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
)

// from is a connection from an address, and nothing else: everything but
// RemoteAddr panics.
type from struct {
	net.Conn
	addr net.Addr
}

func (c from) RemoteAddr() net.Addr { return c.addr }

// liar claims to be a vsock address in all but its type.
type liar struct{ *vsock.Addr }

// text is an address that says anything.
type text struct{ network, s string }

func (a text) Network() string { return a.network }
func (a text) String() string  { return a.s }

func cid(n uint32) net.Addr { return &vsock.Addr{ContextID: n, Port: 1024} }

const (
	someVM  = "1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11"
	otherVM = "2d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11"
)

// vmAddr stands for the addresses of Hyper-V sockets, whose types Windows alone has.
type vmAddr string

func (vmAddr) Network() string  { return "hvsock" }
func (a vmAddr) String() string { return string(a) }

func vmOf(addr net.Addr) (string, error) {
	if vm, ok := addr.(vmAddr); ok {
		return string(vm), nil
	}
	return "", errors.New("no VM")
}

// TestFilters: FAILURES 10. The connections are fakes with the addresses that the
// vsock packages give; the same over real AF_VSOCK is in internal/vmtest.
func TestFilters(t *testing.T) {
	host := socketbridge.AllowCID(2)
	ten := socketbridge.AllowPrefix(netip.MustParsePrefix("10.1.2.3/8"), netip.MustParsePrefix("fe80::/10"))
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	vm := socketbridge.AllowVMBy(vmOf, "{"+someVM+"}", "3D0D4C0A-7F0A-4B6F-9C63-3A6F0E5B2C11")
	for name, c := range map[string]struct {
		filter socketbridge.PeerFilter
		addr   net.Addr
		why    string // empty: let in
	}{
		"the host":                         {host, cid(2), ""},
		"the guest itself":                 {host, cid(1), "its CID is 1, allowed is [2]"},
		"the guest's own CID":              {host, cid(42), "its CID is 42"},
		"the hypervisor":                   {host, cid(0), "its CID is 0"},
		"any CID":                          {host, cid(0xffffffff), "its CID is 4294967295"},
		"virtsock's pointer":               {host, &virtsock.Addr{CID: 2}, ""},
		"virtsock's value":                 {host, virtsock.Addr{CID: 2}, ""},
		"virtsock's guest":                 {host, virtsock.Addr{CID: 3}, "its CID is 3"},
		"several CIDs":                     {socketbridge.AllowCID(3, 4), cid(4), ""},
		"no CID":                           {socketbridge.AllowCID(), cid(2), "allowed is []"},
		"a nil vsock address":              {host, (*vsock.Addr)(nil), "no vsock address"},
		"a nil virtsock address":           {host, (*virtsock.Addr)(nil), "no vsock address"},
		"no address":                       {host, nil, "no remote address"},
		"a wrapped vsock address":          {host, liar{&vsock.Addr{ContextID: 2}}, "no vsock address"},
		"a wrapped nil":                    {host, liar{}, "no vsock address"},
		"an address that looks like vsock": {host, text{"vsock", "host(2):1024"}, "no vsock address"},
		"TCP from 0.0.0.2":                 {host, tcp("0.0.0.2:2"), "no vsock address"},

		"in the prefix":           {ten, tcp("10.200.0.1:1"), ""},
		"in the prefix, UDP":      {ten, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:1")), ""},
		"IPv4 in IPv6":            {ten, tcp("[::ffff:10.0.0.1]:1"), ""},
		"with a zone":             {ten, tcp("[fe80::1%eth0]:1"), ""},
		"outside the prefix":      {ten, tcp("11.0.0.1:1"), "not in [10.1.2.3/8 fe80::/10]"},
		"a prefix of IPv4 in v6":  {socketbridge.AllowPrefix(netip.MustParsePrefix("::ffff:10.0.0.0/104")), tcp("10.0.0.1:1"), ""},
		"no prefix":               {socketbridge.AllowPrefix(), tcp("10.0.0.1:1"), "not in []"},
		"no IP":                   {ten, &net.TCPAddr{}, "not in"},
		"a nil TCP address":       {ten, (*net.TCPAddr)(nil), "not in"},
		"a unix address":          {ten, &net.UnixAddr{Name: "10.0.0.1:1"}, "no address of TCP"},
		"text":                    {ten, text{"tcp", "10.0.0.1:1"}, "no address of TCP"},
		"everywhere, but no IPv6": {socketbridge.AllowPrefix(netip.MustParsePrefix("0.0.0.0/0")), tcp("[::1]:1"), "not in"},

		"the VM":         {vm, vmAddr(someVM), ""},
		"another VM":     {vm, vmAddr(otherVM), "its VM is " + otherVM},
		"upper case":     {vm, vmAddr("3d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11"), ""},
		"not a VM":       {vm, cid(2), "no VM"},
		"the VM of zero": {vm, vmAddr("00000000-0000-0000-0000-000000000000"), "its VM is 0"},

		"anyone":             {socketbridge.AllowAll(), nil, ""},
		"any of: the first":  {socketbridge.AnyOf(host, ten), cid(2), ""},
		"any of: the last":   {socketbridge.AnyOf(host, ten), tcp("10.0.0.1:1"), ""},
		"any of: none":       {socketbridge.AnyOf(host, ten), cid(3), "its CID is 3, allowed is [2]; a *vsock.Addr is no address of TCP or UDP"},
		"any of nothing":     {socketbridge.AnyOf(), cid(2), "nobody is allowed"},
		"any of: a user's":   {socketbridge.AnyOf(refuse("no"), socketbridge.AllowPrefix()), cid(2), "no; a"},
		"any of: with a nil": {socketbridge.AnyOf(socketbridge.AllowAll(), nil), cid(2), "filter 2 of AnyOf is nil"},
		"any of, in any of":  {socketbridge.AnyOf(socketbridge.AnyOf(nil)), cid(2), "filter 1 of AnyOf is nil"},
		"a wildcard of CIDs": {socketbridge.AllowCID(2, 0xffffffff), cid(2), "nobody's"},
		"a wildcard of VMs":  {socketbridge.AllowVMBy(vmOf, someVM, "00000000-0000-0000-0000-000000000000"), vmAddr(someVM), "any VM"},
		"a broken VM":        {socketbridge.AllowVMBy(vmOf, someVM, "x"), vmAddr(someVM), `"x" is not the GUID of a VM`},
		"a broken prefix":    {socketbridge.AllowPrefix(netip.Prefix{}), tcp("10.0.0.1:1"), "invalid prefix"},
		"AllowVM, of a CID":  {socketbridge.AllowVM(someVM), cid(2), "Hyper-V socket"},
		"AllowVM, of a liar": {socketbridge.AllowVM(someVM), text{"hvsock", someVM + ":" + someVM}, "Hyper-V socket"},
		"a VM of no address": {vm, nil, "no remote address"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.filter.Allow(from{addr: c.addr})
			if c.why == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.why)
			require.ErrorIs(t, err, socketbridge.ErrRefused)
			var refused *socketbridge.RefusedError
			require.ErrorAs(t, err, &refused)
			require.NotEmpty(t, refused.Peer)
		})
	}
}

// winAddr and linuxkitAddr stand for the two packages' types.
type (
	winAddr      struct{ vmAddr }
	linuxkitAddr struct{ vmAddr }
)

// TestAddressesOfVMs: of exactly those types that the packages give, and no nil one.
func TestAddressesOfVMs(t *testing.T) {
	ask := func(addr net.Addr) (string, error) {
		return socketbridge.VMOfEither(addr, func(a winAddr) string { return string(a.vmAddr) }, func(a linuxkitAddr) string { return string(a.vmAddr) })
	}
	for _, addr := range []net.Addr{&winAddr{someVM}, &linuxkitAddr{someVM}, linuxkitAddr{someVM}} {
		vm, err := ask(addr)
		require.NoError(t, err)
		require.Equal(t, someVM, vm)
	}
	for _, addr := range []net.Addr{nil, winAddr{someVM}, (*winAddr)(nil), (*linuxkitAddr)(nil), vmAddr(someVM), struct{ *winAddr }{&winAddr{someVM}}} {
		_, err := ask(addr)
		require.ErrorContains(t, err, "no address of a Hyper-V socket", "%T", addr)
	}
}

// refuse is a filter of a user's own.
type refuse string

func (r refuse) Allow(net.Conn) error { return errors.New(string(r)) }

// broken panics, as the method of a nil pointer does.
type broken struct{ net.Conn }

// TestFiltersTakeAnyConnection: what cannot be asked is refused, and nothing panics.
func TestFiltersTakeAnyConnection(t *testing.T) {
	filters := map[string]socketbridge.PeerFilter{
		"CID":    socketbridge.AllowCID(2),
		"VM":     socketbridge.AllowVM(someVM),
		"UID":    socketbridge.AllowUID(0),
		"prefix": socketbridge.AllowPrefix(netip.MustParsePrefix("0.0.0.0/0")),
		"any":    socketbridge.AnyOf(socketbridge.AllowCID(2), socketbridge.AllowUID(0)),
	}
	conns := map[string]net.Conn{
		"nil":             nil,
		"a nil TCP conn":  (*net.TCPConn)(nil),
		"a nil vsock":     (*vsock.Conn)(nil),
		"an empty vsock":  &vsock.Conn{},
		"a broken one":    broken{},
		"a nil address":   from{addr: liar{}},
		"an empty unix":   &net.UnixConn{},
		"no address":      from{},
		"a nil in a conn": (*from)(nil),
	}
	for what, filter := range filters {
		for name, conn := range conns {
			require.ErrorIs(t, filter.Allow(conn), socketbridge.ErrRefused, "%s: %s", what, name)
		}
	}
	require.ErrorIs(t, socketbridge.AllowAll().Allow(nil), socketbridge.ErrRefused)
}

// TestRefusalsSayWho, and why.
func TestRefusalsSayWho(t *testing.T) {
	err := socketbridge.AllowCID(2).Allow(from{addr: cid(7)})
	require.EqualError(t, err, "socketbridge: refused vsock vm(7):1024: its CID is 7, allowed is [2]")
	err = socketbridge.AllowUID(2).Allow(from{addr: &net.UnixAddr{Net: "unix", Name: "@"}})
	require.ErrorContains(t, err, "socketbridge: refused a peer on unix: ")
}

// TestFiltersKeepWhatTheyWereGiven: the caller's slice is the caller's.
func TestFiltersKeepWhatTheyWereGiven(t *testing.T) {
	cids, uids, prefixes := []uint32{2}, []uint32{0xfffffffe}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	byCID, byUID, byPrefix := socketbridge.AllowCID(cids...), socketbridge.AllowUID(uids...), socketbridge.AllowPrefix(prefixes...)
	filters := []socketbridge.PeerFilter{socketbridge.AllowCID(2)}
	anyOf := socketbridge.AnyOf(filters...)
	cids[0], uids[0], prefixes[0], filters[0] = 3, 0, netip.MustParsePrefix("0.0.0.0/0"), socketbridge.AllowAll()
	require.Error(t, byCID.Allow(from{addr: cid(3)}))
	require.Error(t, anyOf.Allow(from{addr: cid(3)}))
	require.Error(t, byPrefix.Allow(from{addr: &net.TCPAddr{IP: net.IPv4(1, 2, 3, 4)}}))
	require.Error(t, byUID.Allow(from{addr: cid(3)}))
}

// TestWhatTheSystemLacks is told as such, and a Bridge does not start with it.
func TestWhatTheSystemLacks(t *testing.T) {
	lacking := []socketbridge.PeerFilter{socketbridge.AllowVM(someVM), socketbridge.AllowVM("x")}
	if runtime.GOOS == "windows" {
		lacking = []socketbridge.PeerFilter{socketbridge.AllowUID(0)}
	} else {
		require.ErrorContains(t, socketbridge.AllowUID(0xffffffff).Allow(from{addr: &net.UnixAddr{}}), "nobody's")
		require.ErrorContains(t, socketbridge.AllowUID(0).Allow(from{addr: &net.UnixAddr{}}), "no descriptor")
	}
	for _, filter := range lacking {
		b := &socketbridge.Bridge{Filter: socketbridge.AnyOf(socketbridge.AllowCID(2), filter), Dial: make(memTarget).Dial}
		err := b.Serve(t.Context(), newMemListener())
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.True(t, isPermanent(err))
	}
	if runtime.GOOS != "windows" {
		require.ErrorIs(t, socketbridge.AllowVM("x").Allow(from{addr: cid(2)}), errors.ErrUnsupported)
		require.ErrorIs(t, socketbridge.AllowVM(someVM).Allow(from{addr: cid(2)}), errors.ErrUnsupported)
		_, err := socketbridge.ListenPipe("guestnet", socketbridge.PipeOptions{})
		require.ErrorIs(t, err, errors.ErrUnsupported)
	} else {
		_, err := socketbridge.ListenUnix("guestnet.sock", socketbridge.UnixOptions{})
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	if runtime.GOOS != "linux" {
		_, err := socketbridge.ListenVsock(1)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = socketbridge.DialVsock(2, 1)(t.Context())
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}
