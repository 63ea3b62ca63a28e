// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is how long a test waits for what must happen.
const limit = 20 * time.Second

// An upstream is a name server on loopback, over UDP and TCP.
type upstream struct {
	addr string

	mu      sync.Mutex
	rrs     []dns.RR
	rcode   int // for all queries, if not 0
	forge   bool
	queries []*dns.Msg
}

const upstreamZone = `
$ORIGIN example.test.
$TTL 300
@       SOA   ns hostmaster 7 3600 600 86400 60
@       NS    ns
@       MX    10 mail
@       CAA   0 issue "ca.test"
www     A     192.0.2.10
www     A     192.0.2.11
www     AAAA  2001:db8::10
alias   CNAME www
_x._tcp SRV   1 2 8080 www
long    TXT   ( "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc" )
odd     TYPE65280 \# 4 0a000001
svc     HTTPS 1 . alpn=h2
b\195\188cher A 192.0.2.12
10.2.0.192.in-addr.arpa. PTR www
`

func newUpstream(t *testing.T, zone string) *upstream {
	t.Helper()
	ln, pc := listenBoth(t)
	return newUpstreamAt(t, zone, ln, pc)
}

func newUpstreamAt(t *testing.T, zone string, ln net.Listener, pc net.PacketConn) *upstream {
	t.Helper()
	u := &upstream{}
	zp := dns.NewZoneParser(strings.NewReader(zone), "", "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		u.rrs = append(u.rrs, rr)
	}
	require.NoError(t, zp.Err())
	for range 60 {
		u.rrs = append(u.rrs, &dns.TXT{
			Hdr: dns.RR_Header{Name: "big.example.test.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 300},
			Txt: []string{strings.Repeat("x", 100+len(u.rrs))},
		})
	}
	u.addr = ln.Addr().String()
	for _, srv := range []*dns.Server{{Listener: ln, Handler: u}, {PacketConn: pc, Handler: u}} {
		done := make(chan error, 1)
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { done <- srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _, _ = srv.Shutdown(), <-done })
	}
	return u
}

func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	var lc net.ListenConfig
	for range 50 {
		ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		pc, err := lc.ListenPacket(t.Context(), "udp", ln.Addr().String())
		if err == nil {
			return ln, pc
		}
		require.NoError(t, ln.Close())
	}
	require.Fail(t, "no port is free for both TCP and UDP")
	return nil, nil
}

func (u *upstream) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.queries = append(u.queries, q)
	m := new(dns.Msg)
	m.SetRcode(q, u.rcode)
	m.RecursionAvailable, m.Compress = true, true
	size := dns.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size = dns.MinMsgSize
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(4096, opt.Do())
		size = max(size, int(opt.UDPSize()))
	}
	if u.rcode == dns.RcodeSuccess {
		u.answer(m, q.Question[0])
	}
	m.Truncate(size)
	if u.forge {
		for _, f := range forgeries(m) {
			_ = w.WriteMsg(f)
		}
	}
	_ = w.WriteMsg(m)
}

func (u *upstream) answer(m *dns.Msg, q dns.Question) {
	exists := false
	name := q.Name
	for _, rr := range u.rrs {
		if h := rr.Header(); strings.EqualFold(h.Name, name) {
			exists = true
			if h.Rrtype == q.Qtype {
				m.Answer = append(m.Answer, rr)
			} else if c, ok := rr.(*dns.CNAME); ok {
				m.Answer = append(m.Answer, rr)
				u.answer(m, dns.Question{Name: c.Target, Qtype: q.Qtype, Qclass: q.Qclass})
				return
			}
		}
	}
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 && len(u.rrs) > 0 && u.rrs[0].Header().Rrtype == dns.TypeSOA {
		m.Ns = u.rrs[:1]
	}
}

// forgeries are answers that someone else may have sent.
func forgeries(m *dns.Msg) []*dns.Msg {
	var fs []*dns.Msg
	for _, spoil := range []func(*dns.Msg){
		func(f *dns.Msg) { f.Id++ },
		func(f *dns.Msg) { f.Question[0].Name = "evil.test." },
		func(f *dns.Msg) { f.Question[0].Qtype++ },
		func(f *dns.Msg) { f.Response = false },
		func(f *dns.Msg) { f.Question = nil },
	} {
		f := m.Copy()
		f.Rcode, f.Answer, f.Ns = dns.RcodeSuccess, nil, nil
		spoil(f)
		fs = append(fs, f)
	}
	return fs
}

func (u *upstream) set(rcode int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rcode = rcode
}

func (u *upstream) seen() []*dns.Msg {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*dns.Msg(nil), u.queries...)
}

// dial leads every server address to u.
func (u *upstream) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, u.addr)
}

// resolver is Go's, with u as its only server.
func (u *upstream) resolver() *net.Resolver { return &net.Resolver{PreferGo: true, Dial: u.dial} }

func resolvConf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// noSystem is the Lookup of a host whose operating system knows nothing.
func noSystem(context.Context, dns.Question) ([]dns.RR, error) { return nil, errors.ErrUnsupported }

// serversOnly is a System without an operating system.
func serversOnly(t *testing.T, u *upstream) *nameserver.System {
	t.Helper()
	return nameserver.NewSystem(nameserver.SystemConfig{
		ResolvConf: resolvConf(t, "nameserver 192.0.2.53\n"), Dial: u.dial, Lookup: noSystem,
	})
}

// serve runs the server on loopback, UDP and TCP at one port, until the test ends.
func serve(t *testing.T, cfg nameserver.Config) (*nameserver.Server, string) {
	t.Helper()
	s, err := nameserver.New(cfg)
	require.NoError(t, err)
	ln, pc := listenBoth(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- s.ServePacket(ctx, pc) }()
	go func() { done <- s.ServeStream(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
	})
	return s, ln.Addr().String()
}

func query(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

// ask sends a query to a real server; the client checks ID and question.
func ask(t *testing.T, network, addr string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: limit}
	m, _, err := c.ExchangeContext(t.Context(), q, addr)
	require.NoError(t, err)
	require.Equal(t, q.Question, m.Question)
	return m
}

// answer asks without a socket.
func answer(t *testing.T, s *nameserver.Server, network string, q *dns.Msg) *dns.Msg {
	t.Helper()
	wire, err := q.Pack()
	require.NoError(t, err)
	return unpack(t, s.Answer(t.Context(), network, wire))
}

func unpack(t *testing.T, wire []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	require.NoError(t, m.Unpack(wire))
	return m
}

func rcode(m *dns.Msg) string { return dns.RcodeToString[m.Rcode] }

// texts are records without their spacing.
func texts(rrs []dns.RR) []string {
	out := []string{}
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.Join(strings.Fields(rr.String()), " "))
		}
	}
	return out
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// resolverFunc is a Resolver.
type resolverFunc func(ctx context.Context, network string, query []byte) ([]byte, error)

func (f resolverFunc) Resolve(ctx context.Context, network string, query []byte) ([]byte, error) {
	return f(ctx, network, query)
}
