// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package switchtest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
)

// patience only bounds how long a broken test hangs.
const patience = 20 * time.Second

var (
	gateway   = netip.MustParseAddr("192.168.127.1")
	hostAlias = netip.MustParseAddr("192.168.127.254")
	otherMAC  = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func withTimeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// zoneOfOne knows outside.example. and nothing else.
type zoneOfOne struct{}

func (zoneOfOne) Resolve(_ context.Context, _ string, query []byte) ([]byte, error) {
	q := new(dns.Msg)
	if err := q.Unpack(query); err != nil {
		return nil, err
	}
	a := new(dns.Msg).SetReply(q)
	for _, text := range []string{"outside.example. 60 IN A 198.51.100.9", `outside.example. 60 IN TXT "hello"`} {
		rr, err := dns.NewRR(text)
		if err != nil {
			return nil, err
		}
		if rr.Header().Name == q.Question[0].Name && rr.Header().Rrtype == q.Question[0].Qtype {
			a.Answer = append(a.Answer, rr)
		}
	}
	switch q.Question[0].Name {
	case "outside.example.":
	case "broken.example.":
		a.Rcode = dns.RcodeServerFailure
	default:
		a.Rcode = dns.RcodeNameError
	}
	return a.Pack()
}

func newSwitch(t testing.TB) *hostswitch.Switch {
	sw, err := hostswitch.New(hostswitch.Config{Resolver: zoneOfOne{}, SearchDomains: []string{"docker.internal"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sw.Close() })
	return sw
}

func attach(t testing.TB, sw *hostswitch.Switch, cfg switchtest.Config) *switchtest.Guest {
	g, err := switchtest.Attach(sw, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// newGuest is on a switch of its own, with a lease.
func newGuest(t testing.TB) (*switchtest.Guest, *hostswitch.Switch) {
	sw := newSwitch(t)
	g := attach(t, sw, switchtest.Config{})
	_, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	return g, sw
}

func TestDHCPConfiguresTheGuest(t *testing.T) {
	sw := newSwitch(t)
	g := attach(t, sw, switchtest.Config{Hostname: "guest"})
	require.False(t, g.Addr().IsValid())
	want, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	require.Equal(t, netip.MustParsePrefix("192.168.127.2/24"), want.Addr)
	require.Equal(t, gateway, want.Gateway)
	require.Equal(t, gateway, want.Server)
	require.Equal(t, []netip.Addr{gateway}, want.DNS)
	require.Equal(t, []string{"docker.internal"}, want.Search)
	require.Equal(t, 1500, want.MTU)
	require.Positive(t, want.Time)
	require.Equal(t, want, g.Lease())
	require.Equal(t, want.Addr.Addr(), g.Addr())

	again, err := g.DHCP(withTimeout(t))
	require.NoError(t, err)
	require.Equal(t, want.Addr, again.Addr)

	second, err := attach(t, sw, switchtest.Config{MAC: otherMAC}).DHCP(withTimeout(t))
	require.NoError(t, err)
	require.NotEqual(t, want.Addr, second.Addr)
}

func TestTheGuestReachesTheHostByItsAlias(t *testing.T) {
	g, _ := newGuest(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{hostAlias.String(), "host.docker.internal", "host"} {
		req, err := http.NewRequestWithContext(withTimeout(t), http.MethodGet, "http://"+net.JoinHostPort(host, port), nil)
		require.NoError(t, err)
		resp, err := g.HTTPClient().Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "hello", string(body))
	}
}

func TestTheHostReachesTheGuest(t *testing.T) {
	g, sw := newGuest(t)
	ln, err := g.Listen("tcp", ":8080")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	c, err := sw.DialContext(withTimeout(t), "tcp", "192.168.127.2:8080")
	require.NoError(t, err)
	in, err := ln.Accept()
	require.NoError(t, err)
	_, err = c.Write([]byte("request"))
	require.NoError(t, err)
	require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
	got, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Equal(t, "request", string(got))
	_, err = in.Write([]byte("late reply"))
	require.NoError(t, err)
	require.NoError(t, in.Close())
	got, err = io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "late reply", string(got))
	require.NoError(t, c.Close())
}

func TestGuestsReachEachOther(t *testing.T) {
	a, sw := newGuest(t)
	b := attach(t, sw, switchtest.Config{MAC: otherMAC})
	require.NoError(t, b.Static(netip.MustParsePrefix("192.168.127.77/24"), gateway))
	pc, err := b.ListenPacket("udp", ":7000")
	require.NoError(t, err)
	defer func() { _ = pc.Close() }()
	c, err := a.DialContext(withTimeout(t), "udp", "192.168.127.77:7000")
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	_, err = c.Write([]byte("ping"))
	require.NoError(t, err)
	buf := make([]byte, 16)
	n, from, err := pc.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, c.LocalAddr().String(), from.String())
	_, err = pc.WriteTo(buf[:n], from)
	require.NoError(t, err)
	n, err = c.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "ping", string(buf[:n]))

	_, err = a.Ping(withTimeout(t), b.Addr())
	require.NoError(t, err)
}

func TestLookup(t *testing.T) {
	g, _ := newGuest(t)
	for host, want := range map[string]string{
		"host.docker.internal":             "192.168.127.254",
		"gateway.rancher-desktop.internal": "192.168.127.1",
		"host":                             "192.168.127.254", // by the search list
		"outside.example":                  "198.51.100.9",
		"192.0.2.1":                        "192.0.2.1",
	} {
		got, err := g.Lookup(withTimeout(t), host)
		require.NoError(t, err, host)
		require.Equal(t, []netip.Addr{netip.MustParseAddr(want)}, got, host)
	}
	for host, notFound := range map[string]bool{"absent.example": true, "absent": true, "::1": true, "broken.example": false} {
		_, err := g.Lookup(withTimeout(t), host)
		var dnsErr *net.DNSError
		require.ErrorAs(t, err, &dnsErr, host)
		require.Equal(t, notFound, dnsErr.IsNotFound, host)
		require.Equal(t, host, dnsErr.Name)
	}
	text, err := g.Resolver().LookupTXT(withTimeout(t), "outside.example.")
	require.NoError(t, err)
	require.Equal(t, []string{"hello"}, text)
}

func TestExchangeTakesTheWireFormat(t *testing.T) {
	g, _ := newGuest(t)
	query, err := new(dns.Msg).SetQuestion("outside.example.", dns.TypeTXT).Pack()
	require.NoError(t, err)
	for _, network := range []string{"udp", "tcp"} {
		wire, err := g.Exchange(withTimeout(t), network, query)
		require.NoError(t, err, network)
		answer := new(dns.Msg)
		require.NoError(t, answer.Unpack(wire))
		require.Len(t, answer.Answer, 1)
	}
	_, err = g.Exchange(withTimeout(t), "udp", query[:11])
	require.Error(t, err)
	_, err = g.Exchange(withTimeout(t), "sctp", query)
	var unknown net.UnknownNetworkError
	require.ErrorAs(t, err, &unknown)
}

func TestPing(t *testing.T) {
	g, _ := newGuest(t)
	for _, a := range []netip.Addr{gateway, hostAlias} {
		before := time.Now()
		took, err := g.Ping(withTimeout(t), a)
		require.NoError(t, err)
		require.GreaterOrEqual(t, took, time.Duration(0), "nothing where clocks tick slowly")
		require.LessOrEqual(t, took, time.Since(before))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := g.Ping(ctx, netip.MustParseAddr("192.168.127.200"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = g.Ping(t.Context(), netip.IPv6LinkLocalAllNodes())
	require.ErrorContains(t, err, "IPv4")
}

func TestWithoutAnAddressCallsSayWhatToDo(t *testing.T) {
	g := attach(t, newSwitch(t), switchtest.Config{})
	_, err := g.DialContext(t.Context(), "tcp", "192.168.127.1:80")
	require.ErrorIs(t, err, switchtest.ErrNoAddress)
	_, err = g.Ping(t.Context(), gateway)
	require.ErrorIs(t, err, switchtest.ErrNoAddress)
	_, err = g.Lookup(t.Context(), "host.docker.internal")
	require.ErrorIs(t, err, switchtest.ErrNoAddress)
	require.ErrorContains(t, g.Static(netip.MustParsePrefix("fd00::1/64"), netip.Addr{}), "fd00::1")
}

func TestArgumentsThatAreWrong(t *testing.T) {
	g, _ := newGuest(t)
	for name, call := range map[string]func() error{
		"dial network":          func() error { _, err := g.Dial("sctp", "192.168.127.1:80"); return err },
		"dial without port":     func() error { _, err := g.Dial("tcp", "192.168.127.1"); return err },
		"dial port":             func() error { _, err := g.Dial("tcp", "192.168.127.1:99999"); return err },
		"listen network":        func() error { _, err := g.Listen("udp", ":80"); return err },
		"listen IPv6":           func() error { _, err := g.Listen("tcp", "[::1]:80"); return err },
		"listen by name":        func() error { _, err := g.Listen("tcp", "host:80"); return err },
		"listen packet network": func() error { _, err := g.ListenPacket("tcp", ":80"); return err },
		"empty frame":           func() error { return g.SendFrame(nil) },
		"endless frame":         func() error { return g.SendFrame(make([]byte, 1<<16)) },
	} {
		require.ErrorContains(t, call(), "switchtest: ", name)
	}
	_, err := g.Dial("tcp", "192.168.127.1:9")
	require.ErrorIs(t, err, refused(t))
}

// refused is what this system says of a port that nobody listens on.
func refused(t *testing.T) (errno syscall.Errno) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	_, err = new(net.Dialer).DialContext(t.Context(), "tcp4", ln.Addr().String())
	require.ErrorAs(t, err, &errno)
	return errno
}

func TestConfigErrorsNameTheFieldAndCloseTheConnection(t *testing.T) {
	for field, cfg := range map[string]switchtest.Config{
		"MAC": {MAC: net.HardwareAddr{1, 0, 0, 0, 0, 1}},
		"MTU": {MTU: 67},
	} {
		inside, outside := net.Pipe()
		_, err := switchtest.NewGuest(inside, cfg)
		require.ErrorContains(t, err, "Config."+field)
		_, err = outside.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)

		sw := newSwitch(t)
		_, err = switchtest.Attach(sw, cfg)
		require.ErrorContains(t, err, "Config."+field)
		require.Empty(t, sw.Snapshot().Ports)
	}
}

func TestFramesAreSeenBothWaysAndSentAsTheyAre(t *testing.T) {
	var mu sync.Mutex
	var in, out int
	hostile := strings.Repeat("x", 13) // shorter than a header
	sent := false
	sw := newSwitch(t)
	g := attach(t, sw, switchtest.Config{Frames: func(isIn bool, f []byte) {
		mu.Lock()
		defer mu.Unlock()
		if isIn {
			in++
		} else {
			out++
		}
		sent = sent || string(f) == hostile
	}})
	require.NoError(t, g.SendFrame([]byte(hostile)))
	_, err := g.DHCP(withTimeout(t))
	require.NoError(t, err, "after it")
	mu.Lock()
	defer mu.Unlock()
	require.True(t, sent)
	require.GreaterOrEqual(t, in, 2)
	require.GreaterOrEqual(t, out, 3)
}

func TestCloseEndsEverything(t *testing.T) {
	g, sw := newGuest(t)
	ln, err := g.Listen("tcp", ":80")
	require.NoError(t, err)
	pc, err := g.ListenPacket("udp", ":80")
	require.NoError(t, err)
	// Nobody has this address, so what is asked of it blocks.
	nobody := netip.MustParseAddr("192.168.127.200")
	mute := attach(t, sw, switchtest.Config{MAC: otherMAC})
	require.NoError(t, mute.Close())
	var blocked sync.WaitGroup
	for name, call := range map[string]func() error{
		"accept":   func() error { _, err := ln.Accept(); return err },
		"readfrom": func() error { _, _, err := pc.ReadFrom(make([]byte, 1)); return err },
		"ping":     func() error { _, err := g.Ping(t.Context(), nobody); return err },
		"dial":     func() error { _, err := g.Dial("tcp", nobody.String()+":80"); return err },
	} {
		blocked.Go(func() {
			if err := call(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	var closing sync.WaitGroup
	for range 3 {
		closing.Go(func() { _ = g.Close() })
	}
	closing.Wait()
	blocked.Wait()
	<-g.Done()
	require.NoError(t, g.Err())
	require.NoError(t, g.Close())
	requireEnded(t, g)
	require.Eventually(t, func() bool { return len(sw.Snapshot().Ports) == 0 }, patience, time.Millisecond)
}

func requireEnded(t *testing.T, g *switchtest.Guest) {
	t.Helper()
	for name, call := range map[string]func() error{
		"dhcp":          func() error { _, err := g.DHCP(t.Context()); return err },
		"static":        func() error { return g.Static(netip.MustParsePrefix("10.0.0.1/8"), netip.Addr{}) },
		"dial tcp":      func() error { _, err := g.Dial("tcp", "192.168.127.1:80"); return err },
		"dial udp":      func() error { _, err := g.Dial("udp", "192.168.127.1:80"); return err },
		"listen":        func() error { _, err := g.Listen("tcp", ":1"); return err },
		"listen packet": func() error { _, err := g.ListenPacket("udp", ":1"); return err },
		"lookup":        func() error { _, err := g.Lookup(t.Context(), "outside.example"); return err },
		"exchange":      func() error { _, err := g.Exchange(t.Context(), "tcp", make([]byte, 12)); return err },
		"ping":          func() error { _, err := g.Ping(t.Context(), gateway); return err },
		"send frame":    func() error { return g.SendFrame(make([]byte, 60)) },
	} {
		err := call()
		require.ErrorIs(t, err, switchtest.ErrClosed, name)
		require.ErrorIs(t, err, net.ErrClosed, name)
	}
}

func TestTheEndOfTheSwitchIsToldAsSuch(t *testing.T) {
	g, sw := newGuest(t)
	require.NoError(t, sw.Close())
	<-g.Done()
	require.ErrorIs(t, g.Err(), hostswitch.ErrClosed)
	requireEnded(t, g)
}

func TestAttachSaysThatTheSwitchDoesNotTakeTheGuest(t *testing.T) {
	sw := newSwitch(t)
	for i := range 64 {
		attach(t, sw, switchtest.Config{MAC: net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}})
	}
	_, err := switchtest.Attach(sw, switchtest.Config{})
	require.ErrorIs(t, err, hostswitch.ErrTooManyGuests)
	require.NoError(t, sw.Close())
	_, err = switchtest.Attach(sw, switchtest.Config{})
	require.ErrorIs(t, err, hostswitch.ErrClosed)
}

func TestANewGuestMayTakeTheFormersPlace(t *testing.T) {
	sw := newSwitch(t)
	for range 20 {
		g := attach(t, sw, switchtest.Config{})
		l, err := g.DHCP(withTimeout(t))
		require.NoError(t, err)
		require.Equal(t, "192.168.127.2/24", l.Addr.String())
		_, err = g.Ping(withTimeout(t), gateway)
		require.NoError(t, err)
		require.NoError(t, g.Close())
	}
}

func TestTheGuestUsesTheAPIOfTheGateway(t *testing.T) {
	g, _ := newGuest(t)
	req, err := http.NewRequestWithContext(withTimeout(t), http.MethodGet, "http://192.168.127.1/services/forwarder/all", nil)
	require.NoError(t, err)
	resp, err := g.HTTPClient().Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}
