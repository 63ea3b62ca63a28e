// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
)

func TestMalformedAndRefusedQueries(t *testing.T) {
	s, err := nameserver.New(nameserver.Config{Zones: zones, Resolver: nowhere})
	require.NoError(t, err)
	header := func(bits byte, questions byte) []byte {
		return []byte{0x12, 0x34, bits, 0, 0, questions, 0, 0, 0, 0, 0, 0}
	}
	question := []byte("\x04host\x06docker\x08internal\x00\x00\x01\x00\x01")
	good := append(header(1, 1), question...)
	edit := func(f func(m *dns.Msg)) []byte {
		m := query("host.docker.internal.", dns.TypeA)
		f(m)
		wire, err := m.Pack()
		require.NoError(t, err)
		return wire
	}
	for name, tc := range map[string]struct {
		query []byte
		want  string // "": no answer is due
	}{
		"good":              {good, "NOERROR"},
		"nothing":           {nil, ""},
		"short of a header": {good[:11], ""},
		"response":          {append(header(0x81, 1), question...), ""},
		"no question":       {header(1, 0), "FORMERR"},
		"question missing":  {header(1, 1), "FORMERR"},
		"question cut":      {good[:len(good)-1], "FORMERR"},
		"two questions":     {append(append(header(1, 2), question...), question...), "FORMERR"},
		"pointer":           {append(header(1, 1), "\xc0\x0c\x00\x01\x00\x01"...), "FORMERR"},
		"long label":        {append(header(1, 1), ("\x40" + strings.Repeat("a", 64) + "\x00\x00\x01\x00\x01")...), "FORMERR"},
		"long name":         {append(header(1, 1), (strings.Repeat("\x3f"+strings.Repeat("a", 63), 4) + "\x00\x00\x01\x00\x01")...), "FORMERR"},
		"records missing":   {append([]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 9}, append(question, 0, 0, 41)...), "FORMERR"},
		"too long":          {append(good, make([]byte, 4096)...), "FORMERR"},
		"update":            {append(header(0x28, 1), question...), "NOTIMP"},
		"status":            {header(0x10, 0), "NOTIMP"},
		"transfer":          {edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), "REFUSED"},
		"transfer of theirs": {edit(func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "x.test.", Qtype: dns.TypeIXFR, Qclass: dns.ClassINET}
		}), "REFUSED"},
		"class of ours": {edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), "REFUSED"},
		"class of theirs": {edit(func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
		}), "YXDOMAIN"},
		"two OPT":         {edit(func(m *dns.Msg) { m.SetEdns0(4096, false); m.Extra = append(m.Extra, m.Extra[0]) }), "FORMERR"},
		"OPT with a name": {edit(func(m *dns.Msg) { m.SetEdns0(4096, false).Extra[0].Header().Name = "a." }), "FORMERR"},
		"EDNS version 1":  {edit(func(m *dns.Msg) { m.SetEdns0(4096, true).IsEdns0().SetVersion(1) }), "BADVERS"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				resp := s.Answer(t.Context(), network, tc.query)
				if tc.want == "" {
					require.Nil(t, resp)
					continue
				}
				m := unpack(t, resp)
				got := rcode(m)
				if opt := m.IsEdns0(); opt != nil && m.Rcode == dns.RcodeBadVers {
					got = "BADVERS"
					require.Zero(t, opt.Version())
					require.True(t, opt.Do())
				}
				require.Equal(t, tc.want, got)
				require.True(t, m.Response)
				require.Equal(t, tc.query[:2], resp[:2])
				require.Equal(t, tc.query[2]>>3&0xf, resp[2]>>3&0xf, "opcode")
			}
		})
	}
}

func TestAnswersFitTheClient(t *testing.T) {
	s, err := nameserver.New(nameserver.Config{Zones: zones, Resolver: serversOnly(t, newUpstream(t, upstreamZone))})
	require.NoError(t, err)
	for _, tc := range []struct {
		edns  uint16
		limit int
	}{{0, 512}, {100, 512}, {512, 512}, {1000, 1000}, {1232, 1232}, {4096, 1232}, {65535, 1232}} {
		q := query("big.example.test.", dns.TypeTXT)
		if tc.edns != 0 {
			q.SetEdns0(tc.edns, true)
		}
		wire, err := q.Pack()
		require.NoError(t, err)
		resp := s.Answer(t.Context(), "udp", wire)
		require.LessOrEqual(t, len(resp), tc.limit)
		m := unpack(t, resp)
		require.True(t, m.Truncated)
		require.Equal(t, q.Question, m.Question)
		require.NotEmpty(t, m.Answer, "what fits is there, for clients that never use TCP")
		require.Equal(t, tc.edns != 0, m.IsEdns0() != nil)

		m = unpack(t, s.Answer(t.Context(), "tcp", wire))
		require.False(t, m.Truncated)
		require.Len(t, m.Answer, 60)
	}
	q := query("host.docker.internal.", dns.TypeA)
	require.Nil(t, answer(t, s, "udp", q).IsEdns0(), "no OPT unless asked (RFC 6891)")
	opt := answer(t, s, "udp", q.SetEdns0(4096, true)).IsEdns0()
	require.NotNil(t, opt)
	require.True(t, opt.Do())
	require.Equal(t, uint16(1232), opt.UDPSize())
}

func TestUntrueResolverBecomesServfail(t *testing.T) {
	reply := func(f func(m *dns.Msg)) resolverFunc {
		return func(_ context.Context, _ string, q []byte) ([]byte, error) {
			m := new(dns.Msg)
			if err := m.Unpack(q); err != nil {
				return nil, err
			}
			m.SetReply(m.Copy())
			f(m)
			return m.Pack()
		}
	}
	raw := func(b []byte, err error) resolverFunc {
		return func(context.Context, string, []byte) ([]byte, error) { return b, err }
	}
	for name, tc := range map[string]struct {
		resolver nameserver.Resolver
		want     string
	}{
		"true":              {reply(func(*dns.Msg) {}), "NOERROR"},
		"other case":        {reply(func(m *dns.Msg) { m.Question[0].Name = strings.ToLower(m.Question[0].Name) }), "NOERROR"},
		"bare error":        {reply(func(m *dns.Msg) { m.Rcode = dns.RcodeFormatError; m.Question = nil }), "FORMERR"},
		"bare success":      {reply(func(m *dns.Msg) { m.Question = nil }), "SERVFAIL"},
		"bare NXDOMAIN":     {reply(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError; m.Question = nil }), "SERVFAIL"},
		"wrong ID":          {reply(func(m *dns.Msg) { m.Id++ }), "SERVFAIL"},
		"wrong name":        {reply(func(m *dns.Msg) { m.Question[0].Name = "wwx.example.test." }), "SERVFAIL"},
		"wrong type":        {reply(func(m *dns.Msg) { m.Question[0].Qtype = 97 }), "SERVFAIL"}, // 'a', where 65 is 'A'
		"wrong class":       {reply(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), "SERVFAIL"},
		"wrong opcode":      {reply(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), "SERVFAIL"},
		"two questions":     {reply(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), "SERVFAIL"},
		"the query":         {reply(func(m *dns.Msg) { m.Response = false }), "SERVFAIL"},
		"nothing":           {raw(nil, nil), "SERVFAIL"},
		"garbage":           {raw([]byte("garbage, and enough of it"), nil), "SERVFAIL"},
		"short":             {raw([]byte{0, 0, 0x80}, nil), "SERVFAIL"},
		"too long":          {raw(make([]byte, dns.MaxMsgSize+1), nil), "SERVFAIL"},
		"error":             {raw(nil, errors.New("no network")), "SERVFAIL"},
		"answer with error": {raw([]byte("x"), errors.New("no network")), "SERVFAIL"},
		"hung": {resolverFunc(func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}), "SERVFAIL"},
		"none": {nil, "SERVFAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := nameserver.New(nameserver.Config{Resolver: tc.resolver, Timeout: time.Millisecond * 100})
			require.NoError(t, err)
			q := query("WwW.example.test.", dns.TypeHTTPS)
			m := answer(t, s, "udp", q)
			require.Equal(t, tc.want, rcode(m))
			require.Equal(t, q.Id, m.Id)
			require.Equal(t, q.Question, m.Question)
			require.True(t, m.Response)
			st := s.Stats()
			require.Equal(t, uint64(1), st.Forwarded)
			require.Equal(t, tc.want == "SERVFAIL", st.Failed == 1)
		})
	}
}

// An answer that does not parse is passed on if it fits, and shortened if not.
func TestUnreadableAnswerOverUDP(t *testing.T) {
	s, err := nameserver.New(nameserver.Config{Resolver: resolverFunc(func(_ context.Context, _ string, q []byte) ([]byte, error) {
		resp := append(q, make([]byte, 2000)...)
		resp[2] |= 0x80
		resp[7] = 200 // answers, which are not there
		return resp, nil
	})})
	require.NoError(t, err)
	q := query("x.test.", dns.TypeA)
	m := answer(t, s, "udp", q)
	require.True(t, m.Truncated)
	require.Equal(t, q.Question, m.Question)
	require.Empty(t, m.Answer)
}

// gate is a Resolver whose answers wait until it is opened.
type gate struct {
	entered atomic.Int32
	open    chan struct{}
}

func (g *gate) Resolve(ctx context.Context, network string, q []byte) ([]byte, error) {
	g.entered.Add(1)
	select {
	case <-g.open:
		return nowhere(ctx, network, q)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(limit)))
	return conn
}

func TestFloodIsDroppedAndZonesAreStillAnswered(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	s, addr := serve(t, nameserver.Config{Zones: zones, Resolver: g, MaxInFlight: 3, MaxPerSource: 3, Timeout: limit})
	flood := dial(t, "udp", addr)
	wire, err := query("slow.test.", dns.TypeA).Pack()
	require.NoError(t, err)
	require.Eventually(t, func() bool { // a datagram may be lost even on loopback
		_, err := flood.Write(wire)
		return err == nil && s.Stats().Dropped >= 20
	}, limit, time.Millisecond)
	require.EqualValues(t, 3, g.entered.Load())

	require.Equal(t, "NOERROR", rcode(ask(t, "udp", addr, query("host.docker.internal.", dns.TypeA))))
	require.Equal(t, "NOERROR", rcode(ask(t, "tcp", addr, query("host.docker.internal.", dns.TypeA))))

	// Over TCP a query waits for its turn instead.
	conn := &dns.Conn{Conn: dial(t, "tcp", addr)}
	require.NoError(t, conn.WriteMsg(query("waits.test.", dns.TypeA)))
	close(g.open)
	m, err := conn.ReadMsg()
	require.NoError(t, err)
	require.Equal(t, "YXDOMAIN", rcode(m))
	require.Equal(t, "YXDOMAIN", rcode(ask(t, "udp", addr, query("after.test.", dns.TypeA))))
}

func TestQueriesOfOneConnectionOvertake(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	_, addr := serve(t, nameserver.Config{Zones: zones, Resolver: g, Timeout: limit})
	tcp := dial(t, "tcp", addr)
	conn := &dns.Conn{Conn: tcp}
	slow, fast := query("slow.test.", dns.TypeA), query("host.docker.internal.", dns.TypeA)
	slow.Id, fast.Id = 1, 2
	require.NoError(t, conn.WriteMsg(slow))
	require.NoError(t, conn.WriteMsg(fast))
	m, err := conn.ReadMsg()
	require.NoError(t, err)
	require.Equal(t, fast.Id, m.Id)

	// FAILURES 25: the client has nothing more to say and still wants the answer.
	require.NoError(t, tcp.(*net.TCPConn).CloseWrite())
	close(g.open)
	m, err = conn.ReadMsg()
	require.NoError(t, err)
	require.Equal(t, slow.Id, m.Id)
	_, err = conn.ReadMsg()
	require.ErrorIs(t, err, io.EOF)
}

// FAILURES 6: a slow client is dropped, others go on.
func TestSlowClientsAreDropped(t *testing.T) {
	_, addr := serve(t, nameserver.Config{Zones: zones, IdleTimeout: time.Second})
	for name, start := range map[string]string{"says nothing": "", "half a length": "\x00", "half a query": "\x00\x20abc"} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, "tcp", addr)
			_, err := conn.Write([]byte(start))
			require.NoError(t, err)
			require.Equal(t, "NOERROR", rcode(ask(t, "tcp", addr, query("host.docker.internal.", dns.TypeA))))
			_, err = conn.Read(make([]byte, 1))
			require.Error(t, err)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "still open")
		})
	}
}

// One byte at a time does not buy more time either.
func TestTricklingClientIsDropped(t *testing.T) {
	_, addr := serve(t, nameserver.Config{IdleTimeout: 100 * time.Millisecond})
	conn := dial(t, "tcp", addr)
	_, err := conn.Write([]byte{0x0f, 0xff})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := conn.Write([]byte{0})
		return err != nil
	}, limit, 20*time.Millisecond)
}

// A client that asks and never reads does not keep the others waiting.
func TestClientThatDoesNotReadIsDropped(t *testing.T) {
	u := newUpstream(t, upstreamZone)
	s, addr := serve(t, nameserver.Config{Zones: zones, Resolver: serversOnly(t, u), MaxInFlight: 4, IdleTimeout: 200 * time.Millisecond})
	conn := dial(t, "tcp", addr)
	wire, err := query("big.example.test.", dns.TypeTXT).Pack()
	require.NoError(t, err)
	msg := append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
	require.Eventually(t, func() bool {
		_, err := conn.Write(msg)
		return err != nil
	}, limit, time.Microsecond)
	require.Equal(t, "NOERROR", rcode(ask(t, "tcp", addr, query("www.example.test.", dns.TypeA))))
	require.Less(t, s.Stats().Queries, uint64(100_000))
}

func TestTooManyConnectionsAreClosed(t *testing.T) {
	s, addr := serve(t, nameserver.Config{Zones: zones, MaxStreams: 2, MaxStreamsPerSource: 2, IdleTimeout: limit})
	q := query("host.docker.internal.", dns.TypeA)
	var conns []*dns.Conn
	for range 2 {
		conn := &dns.Conn{Conn: dial(t, "tcp", addr)}
		require.NoError(t, conn.WriteMsg(q))
		_, err := conn.ReadMsg()
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	_, err := dial(t, "tcp", addr).Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Equal(t, uint64(1), s.Stats().Dropped)

	require.NoError(t, conns[0].Close())
	require.Eventually(t, func() bool {
		c := &dns.Client{Net: "tcp", Timeout: limit}
		_, _, err := c.ExchangeContext(t.Context(), q, addr)
		return err == nil
	}, limit, 10*time.Millisecond)
	require.Equal(t, "NOERROR", rcode(ask(t, "udp", addr, q)))
}

func TestConnectionThatSpeaksNoDNSIsClosed(t *testing.T) {
	_, addr := serve(t, nameserver.Config{Zones: zones})
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00", "\x00\x0c\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		conn := dial(t, "tcp", addr)
		_, err := conn.Write([]byte(text))
		require.NoError(t, err)
		_, err = conn.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	for _, busy := range []bool{false, true} {
		g := &gate{open: make(chan struct{})}
		s, err := nameserver.New(nameserver.Config{Resolver: g, Timeout: -1, MaxInFlight: 2, MaxPerSource: 2, IdleTimeout: -1})
		require.NoError(t, err)
		ln, pc := listenBoth(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- s.ServePacket(ctx, pc) }()
		go func() { done <- s.ServeStream(ctx, ln) }()
		if busy {
			wire, err := query("slow.test.", dns.TypeA).Pack()
			require.NoError(t, err)
			conn := &dns.Conn{Conn: dial(t, "tcp", ln.Addr().String())}
			for range 100 { // most wait for their turn
				require.NoError(t, conn.WriteMsg(query("slow.test.", dns.TypeA)))
			}
			_, err = dial(t, "udp", ln.Addr().String()).Write(wire)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return g.entered.Load() == 2 }, limit, time.Millisecond)
		}
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		_, _, err = pc.ReadFrom(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed, "the socket is closed")
		_, err = ln.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

func TestServeBeforeAndAfterTheEnd(t *testing.T) {
	s, err := nameserver.New(nameserver.Config{})
	require.NoError(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	ln, pc := listenBoth(t)
	require.NoError(t, s.ServePacket(ended, pc))
	require.NoError(t, s.ServeStream(ended, ln))

	// Closed by someone else: that is worth an error.
	require.ErrorIs(t, s.ServePacket(t.Context(), pc), net.ErrClosed)
	require.ErrorIs(t, s.ServeStream(t.Context(), ln), net.ErrClosed)
}

// failingConn fails some reads, as Windows does after an ICMP error, and then
// ends the way a netstack socket does.
type failingConn struct {
	net.PacketConn
	left atomic.Int32
	end  error
}

func (c *failingConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if c.left.Add(-1) >= 0 {
		return 0, nil, errors.New("connection reset")
	}
	n, from, err := c.PacketConn.ReadFrom(b)
	if err != nil {
		err = c.end
	}
	return n, from, err
}

func TestReadErrorsAreSurvived(t *testing.T) {
	s, err := nameserver.New(nameserver.Config{Zones: zones})
	require.NoError(t, err)
	ln, pc := listenBoth(t)
	require.NoError(t, ln.Close())
	conn := &failingConn{PacketConn: pc, end: io.EOF}
	conn.left.Store(5)
	done := make(chan error, 1)
	go func() { done <- s.ServePacket(t.Context(), conn) }()
	require.Equal(t, "NOERROR", rcode(ask(t, "udp", pc.LocalAddr().String(), query("host.docker.internal.", dns.TypeA))))
	require.NoError(t, pc.Close())
	require.ErrorIs(t, <-done, net.ErrClosed)
}

func TestAnswerGivesUpWhenItsContextEnds(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	s, err := nameserver.New(nameserver.Config{Resolver: g, MaxInFlight: 1, Timeout: -1})
	require.NoError(t, err)
	wire, err := query("slow.test.", dns.TypeA).Pack()
	require.NoError(t, err)
	first := make(chan []byte)
	go func() { first <- s.Answer(t.Context(), "udp", wire) }()
	require.Eventually(t, func() bool { return g.entered.Load() == 1 }, limit, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Nil(t, s.Answer(ctx, "udp", wire), "it waited for its turn")
	close(g.open)
	require.NotNil(t, <-first)
	require.Equal(t, nameserver.Stats{Queries: 2, Forwarded: 1}, s.Stats())
}

func FuzzAnswer(f *testing.F) {
	for _, q := range []*dns.Msg{
		query("host.docker.internal.", dns.TypeA),
		query("x.test.", dns.TypeHTTPS).SetEdns0(4096, true),
		query("1.127.168.192.in-addr.arpa.", dns.TypePTR),
		query("docker.internal.", dns.TypeANY).SetEdns0(0, false),
		new(dns.Msg).SetUpdate("docker.internal."),
		new(dns.Msg).SetAxfr("."),
	} {
		wire, err := q.Pack()
		require.NoError(f, err)
		f.Add(true, wire)
		f.Add(false, wire)
		f.Add(true, wire[:len(wire)-3])
	}
	f.Add(true, []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	s, err := nameserver.New(nameserver.Config{Zones: zones, Resolver: resolverFunc(func(_ context.Context, _ string, q []byte) ([]byte, error) {
		resp := append(q, q...) // answers of a kind
		resp[2] |= 0x80
		return resp, nil
	})})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, udp bool, query []byte) {
		network := "tcp"
		if udp {
			network = "udp"
		}
		before := string(query)
		resp := s.Answer(t.Context(), network, query)
		require.Equal(t, before, string(query))
		if len(query) < 12 || query[2]&0x80 != 0 {
			require.Nil(t, resp)
			return
		}
		require.GreaterOrEqual(t, len(resp), 12)
		require.Equal(t, query[:2], resp[:2])
		require.NotZero(t, resp[2]&0x80)
		require.LessOrEqual(t, len(resp), dns.MaxMsgSize)
		if udp {
			require.LessOrEqual(t, len(resp), 1232)
		}
		if resp[5] != 0 { // the question came back as it was asked
			end := 12
			for resp[end] != 0 {
				end += 1 + int(resp[end])
			}
			require.Equal(t, query[12:end+5], resp[12:end+5])
		}
	})
}
