// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// patience only keeps a test that hangs from hanging for ever.
const patience = 20 * time.Second

var (
	gatewayMAC = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd}
	guestMAC   = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	guestDNS   = []netip.Addr{netip.MustParseAddr("192.168.127.1")}
	gateway    = netip.MustParseAddr("192.168.127.1")
	guestAddr  = netip.MustParsePrefix("192.168.127.2/24")
)

// namespace is a network namespace of one test.
type namespace struct {
	t    *testing.T
	fd   netns.NsHandle
	path string
	nl   *netlink.Handle
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const remedy = "needs network namespaces and /dev/net/tun: run the tests as root"
	if os.Getenv("CI") == "true" {
		t.Fatal(remedy)
	}
	t.Skip(remedy)
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	needRoot(t)
	n := &namespace{t: t}
	errc := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		var err error
		n.fd, err = netns.New()
		errc <- err
	}()
	require.NoError(t, <-errc)
	n.path = fmt.Sprintf("/proc/self/fd/%d", int(n.fd))
	var err error
	n.nl, err = netlink.NewHandleAt(n.fd, unix.NETLINK_ROUTE)
	require.NoError(t, err)
	t.Cleanup(func() {
		n.nl.Close()
		_ = n.fd.Close()
	})
	return n
}

// do calls f on a thread inside the namespace.
func (n *namespace) do(f func() error) {
	n.t.Helper()
	errc := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(n.fd)
		if err == nil {
			err = f()
		}
		errc <- err
	}()
	require.NoError(n.t, <-errc)
}

// untouched is the state of a new namespace.
const untouched = "lo  false\n[] []\n"

// state is all that a run could have left behind in the namespace.
func (n *namespace) state() (s string) {
	n.t.Helper()
	links, err := n.nl.LinkList()
	require.NoError(n.t, err)
	for _, l := range links {
		a := l.Attrs()
		s += fmt.Sprintln(a.Name, a.HardwareAddr, a.Flags&net.FlagUp != 0)
	}
	addrs, err := n.nl.AddrList(nil, netlink.FAMILY_V4)
	require.NoError(n.t, err)
	addrs = slices.DeleteFunc(addrs, func(a netlink.Addr) bool { return a.IP.IsLoopback() }) // the kernel's own
	routes, err := n.nl.RouteList(nil, netlink.FAMILY_V4)
	require.NoError(n.t, err)
	return s + fmt.Sprintln(addrs, routes)
}

func (n *namespace) link(name string) *netlink.LinkAttrs {
	n.t.Helper()
	l, err := n.nl.LinkByName(name)
	require.NoError(n.t, err)
	return l.Attrs()
}

// addrs returns the IPv4 addresses of eth0.
func (n *namespace) addrs() []string {
	n.t.Helper()
	l, err := n.nl.LinkByName("eth0")
	require.NoError(n.t, err)
	list, err := n.nl.AddrList(l, netlink.FAMILY_V4)
	require.NoError(n.t, err)
	var out []string
	for _, a := range list {
		out = append(out, a.IPNet.String())
	}
	return out
}

// gateways returns those of the default routes.
func (n *namespace) gateways() []string {
	n.t.Helper()
	list, err := n.nl.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	require.NoError(n.t, err)
	var out []string
	for _, r := range list {
		out = append(out, r.Gw.String())
	}
	return out
}

// ip runs ip(8) inside the namespace.
func (n *namespace) ip(args ...string) {
	n.t.Helper()
	n.do(func() error {
		out, err := exec.CommandContext(n.t.Context(), "ip", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
		return nil
	})
}

// run is a Guest that runs, and what it said.
type run struct {
	t       *testing.T
	ns      *namespace
	guest   *guestswitch.Guest
	cancel  context.CancelFunc
	events  chan guestswitch.Event
	reports chan error
	err     error
	done    chan struct{}
}

// start runs g in its own namespace, with the other end of its connection.
func start(t *testing.T, g *guestswitch.Guest) (*run, net.Conn) {
	t.Helper()
	near, far := socketPair(t)
	g.Dial = func(context.Context) (net.Conn, error) { return near, nil }
	return startDialled(t, newNamespace(t), g), far
}

func startDialled(t *testing.T, ns *namespace, g *guestswitch.Guest) *run {
	t.Helper()
	g.Tap.NetNS = ns.path
	ctx, cancel := context.WithCancel(t.Context())
	r := &run{
		t: t, ns: ns, guest: g, cancel: cancel, done: make(chan struct{}),
		events: make(chan guestswitch.Event, 1024), reports: make(chan error, 1024),
	}
	g.OnEvent = func(e guestswitch.Event) { r.events <- e }
	go func() {
		defer close(r.done)
		r.err = g.RunReporting(ctx, func(err error) { r.reports <- err })
	}()
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

// wait returns the next event of the kind; those before it are dropped.
func (r *run) wait(kind guestswitch.EventKind) guestswitch.Event {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-r.events:
			if e.Err != nil {
				require.Equal(r.t, 1, strings.Count(e.Err.Error(), "guestswitch: "), "it says once whose error it is: %v", e.Err)
			}
			if e.Kind == kind {
				return e
			}
		case <-r.done:
			require.FailNow(r.t, "the run ended", "waiting for %v: %v", kind, r.err)
		case <-timeout:
			require.FailNow(r.t, "no event", "waiting for %v", kind)
		}
	}
}

// end waits for Run to return.
func (r *run) end() error {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		require.FailNow(r.t, "Run does not return")
	}
	return r.err
}

// stop cancels the run, which has to return nil and leave nothing.
func (r *run) stop() {
	r.t.Helper()
	r.cancel()
	require.NoError(r.t, r.end())
	require.Equal(r.t, untouched, r.ns.state())
}

func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	conns := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conns[i], err = net.FileConn(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	t.Cleanup(func() { _ = conns[0].Close(); _ = conns[1].Close() })
	return conns[0], conns[1]
}

// host is the other end: it answers DHCP as the test says, and keeps the rest.
type host struct {
	t      *testing.T
	conn   net.Conn
	mu     sync.Mutex
	answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4
	asked  chan *dhcpv4.DHCPv4
	frames chan []byte
	wire   [][]byte      // all that came, in its order; to be read after gone
	gone   chan struct{} // closed when the connection has ended
}

func serve(t *testing.T, conn net.Conn, answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4) *host {
	h := &host{
		t: t, conn: conn, answer: answer,
		asked: make(chan *dhcpv4.DHCPv4, 1024), frames: make(chan []byte, 16384), gone: make(chan struct{}),
	}
	go func() {
		defer close(h.gone)
		for r := frame.NewReader(conn); ; {
			f, err := r.Next()
			if err != nil {
				return
			}
			h.wire = append(h.wire, bytes.Clone(f))
			h.got(f)
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-h.gone })
	return h
}

func (h *host) got(f []byte) {
	eth, _ := packet.ParseEthernet(f)
	ip, _ := packet.ParseIPv4(eth.Payload)
	udp, ok := packet.ParseUDP(ip)
	if eth.Type != packet.EtherIPv4 || !ok || udp.DstPort != 67 {
		h.frames <- append([]byte(nil), f...)
		return
	}
	m, err := dhcpv4.FromBytes(udp.Payload)
	if err != nil {
		return
	}
	h.asked <- m
	h.mu.Lock()
	reply := h.answer(m)
	h.mu.Unlock()
	if reply != nil {
		_, _ = h.conn.Write(encode(packet.AppendUDP(nil, packet.Link{Src: gatewayMAC, Dst: guestMAC},
			netip.AddrPortFrom(gateway, 67), netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 68), reply.ToBytes())))
	}
}

// change replaces what is answered.
func (h *host) change(answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

func (h *host) waitAsked(kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	h.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-h.asked:
			if m.MessageType() == kind {
				return m
			}
		case <-timeout:
			require.FailNow(h.t, "not asked", "%v", kind)
		}
	}
}

// waitFrame returns the next frame for which ok holds.
func (h *host) waitFrame(ok func(packet.Ethernet) bool) packet.Ethernet {
	h.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case f := <-h.frames:
			if eth, _ := packet.ParseEthernet(f); ok(eth) {
				return eth
			}
		case <-timeout:
			require.FailNow(h.t, "no such frame")
		}
	}
}

func encode(f []byte) []byte {
	return append(binary.LittleEndian.AppendUint16(nil, uint16(len(f))), f...)
}

func option(code uint8, b ...byte) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), b))
}

// leases answers as a server does that grants addr for the time.
func leases(addr netip.Prefix, d time.Duration, mods ...dhcpv4.Modifier) func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	return func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		kind := dhcpv4.MessageTypeAck
		switch m.MessageType() {
		case dhcpv4.MessageTypeDiscover:
			kind = dhcpv4.MessageTypeOffer
		case dhcpv4.MessageTypeRequest:
		default:
			return nil
		}
		return reply(m, kind, append([]dhcpv4.Modifier{
			dhcpv4.WithYourIP(addr.Addr().AsSlice()),
			dhcpv4.WithNetmask(net.CIDRMask(addr.Bits(), 32)),
			dhcpv4.WithRouter(gateway.AsSlice()),
			dhcpv4.WithDNS(gateway.AsSlice()),
			dhcpv4.WithLeaseTime(uint32(d / time.Second)),
		}, mods...)...)
	}
}

func reply(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	r, err := dhcpv4.NewReplyFromRequest(m, append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway.AsSlice())),
	}, mods...)...)
	if err != nil {
		panic(err)
	}
	return r
}

// silent is a server that is not there.
func silent(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return nil }
