// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// The world's zone, as a zone file has it. big.example.test. is added to it.
const worldZone = `
example.test.        300 IN SOA  ns.example.test. admin.example.test. 7 3600 600 86400 60
www.example.test.    300 IN A    203.0.113.1
txt.example.test.    300 IN TXT  "hello from the world"
example.test.        300 IN MX   10 mail.example.test.
_sip._tcp.example.test. 300 IN SRV 1 2 5060 sip.example.test.
host.lab.test.       300 IN A    203.0.113.1
1.113.0.203.in-addr.arpa. 300 IN PTR www.example.test.
`

// bigAnswer is longer than any UDP answer of the gateway.
var bigAnswer = strings.Repeat("x", 200)

// serveDNS answers for the world's zone, and with NXDOMAIN for the rest. Every
// answer about who.example.test. is the address itself, to tell servers apart.
func serveDNS(t *testing.T, n *namespace, address string) {
	t.Helper()
	records := map[dns.Question][]dns.RR{}
	add := func(rr dns.RR) {
		q := dns.Question{Name: rr.Header().Name, Qtype: rr.Header().Rrtype, Qclass: dns.ClassINET}
		records[q] = append(records[q], rr)
	}
	text := worldZone + "who.example.test. 0 IN A " + address + "\n"
	for i := range 20 {
		text += fmt.Sprintf("big.example.test. 300 IN TXT \"%d %s\"\n", i, bigAnswer)
	}
	parser := dns.NewZoneParser(strings.NewReader(text), "", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		add(rr)
	}
	require.NoError(t, parser.Err())

	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = records[q.Question[0]]
		if m.Answer == nil {
			m.Rcode = dns.RcodeNameError
		}
		size := dns.MaxMsgSize
		if w.RemoteAddr().Network() == "udp" {
			size = dns.MinMsgSize
			if opt := q.IsEdns0(); opt != nil {
				size = int(opt.UDPSize())
				m.SetEdns0(1232, false)
			}
		}
		m.Truncate(size)
		_ = w.WriteMsg(m)
	})
	for _, server := range []*dns.Server{
		{PacketConn: n.listenPacket(address + ":53"), Handler: handler},
		{Listener: n.listen(address + ":53"), Handler: handler},
	} {
		up, done := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(up) }
		go func() { done <- server.ActivateAndServe() }()
		<-up
		t.Cleanup(func() {
			require.NoError(t, server.Shutdown())
			require.NoError(t, <-done)
		})
	}
}
