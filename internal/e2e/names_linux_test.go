// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testNames asks the gateway with dig, over UDP and TCP.
func testNames(t *testing.T, p programs) {
	l := newLab(t, p)
	l.startGuest()
	for name, tc := range map[string]struct{ query, status, answer string }{
		"gateway":              {"gateway.rancher-desktop.internal A", "NOERROR", gateway},
		"host":                 {"host.rancher-desktop.internal A", "NOERROR", hostAlias},
		"gateway of docker":    {"gateway.docker.internal A", "NOERROR", gateway},
		"host of docker":       {"HOST.Docker.internal A", "NOERROR", hostAlias},
		"unknown in a zone":    {"other.docker.internal A", "NXDOMAIN", ""},
		"other type in a zone": {"host.docker.internal AAAA", "NOERROR", ""},
		"PTR of the gateway":   {"-x " + gateway, "NOERROR", "gateway.rancher-desktop.internal."},
		"PTR of the host":      {"-x " + hostAlias, "NOERROR", "host.rancher-desktop.internal."},
		"PTR of no one":        {"-x 192.168.127.77", "NXDOMAIN", ""},
		"PTR outside":          {"-x " + worldAddr, "NOERROR", "www.example.test."},
		"A":                    {"www.example.test A", "NOERROR", worldAddr},
		"TXT":                  {"txt.example.test TXT", "NOERROR", `"hello from the world"`},
		"MX":                   {"example.test MX", "NOERROR", "10 mail.example.test."},
		"SRV":                  {"_sip._tcp.example.test SRV", "NOERROR", "1 2 5060 sip.example.test."},
		"SOA":                  {"example.test SOA", "NOERROR", "ns.example.test. admin.example.test. 7 3600 600 86400 60"},
		"hosts file":           {"pinned.test A", "NOERROR", "192.0.2.9"},
		"unknown":              {"no.example.test A", "NXDOMAIN", ""},
	} {
		for _, transport := range []string{"+notcp", "+tcp"} {
			t.Run(name+transport, func(t *testing.T) {
				a := dig(l.guest, append(strings.Fields(tc.query), transport, "+ignore")...)
				require.Equal(t, tc.status, a.status, a.text)
				require.Equal(t, tc.answer, a.answers(), a.text)
			})
		}
	}
	t.Run("long answer", func(t *testing.T) {
		cut := dig(l.guest, "big.example.test", "TXT", "+notcp", "+ignore")
		require.Contains(t, cut.flags, "tc", cut.text)
		whole := dig(l.guest, "big.example.test", "TXT") // asks again by itself
		require.NotContains(t, whole.flags, "tc", whole.text)
		require.Equal(t, 20, strings.Count(whole.text, bigAnswer), whole.text)
	})

	// FAILURES 22: a host without a name server, and one that moves to another
	// network.
	t.Run("the host's name servers change", func(t *testing.T) {
		becomes := func(name, status, answer string) {
			t.Helper()
			require.Eventually(t, func() bool {
				a := dig(l.guest, name, "A")
				return a.status == status && a.answers() == answer
			}, patience, tick, "%s is not %s %s", name, status, answer)
		}
		old := time.Now().Add(-time.Hour) // not a file that changes every second
		require.NoError(t, os.Chtimes(l.host.resolvConf(), old, old))
		becomes("who.example.test", "NOERROR", worldDNS)
		l.host.write("resolv.conf", "nameserver "+otherDNS+"\n")
		becomes("who.example.test", "NOERROR", otherDNS)
		l.host.write("resolv.conf", "")
		becomes("who.example.test", "SERVFAIL", "")
		becomes("host.docker.internal", "NOERROR", hostAlias)
		l.host.write("resolv.conf", hostResolvConf)
		becomes("who.example.test", "NOERROR", worldDNS)
	})
	t.Run("a host that starts without a name server", func(t *testing.T) {
		l := newLab(t, p) // its own
		l.hostswitch.Stop()
		l.host.write("resolv.conf", "")
		l.startHost()
		l.startGuest()
		require.Equal(t, "SERVFAIL", dig(l.guest, "www.example.test").status)
		require.Equal(t, hostAlias, dig(l.guest, "host.docker.internal").answers())
	})
}

// A reply is what dig(1) prints.
type reply struct{ text, status, flags string }

// dig asks the gateway from a guest.
func dig(n *namespace, args ...string) reply {
	n.t.Helper()
	r := reply{text: n.run(append([]string{"dig", "@" + gateway, "+tries=2", "+timeout=10"}, args...)...)}
	_, after, _ := strings.Cut(r.text, "status: ")
	r.status, _, _ = strings.Cut(after, ",")
	_, after, _ = strings.Cut(r.text, ";; flags: ")
	r.flags, _, _ = strings.Cut(after, ";")
	return r
}

// answers returns the data of the answers, one a line.
func (r reply) answers() string {
	var data []string
	for line := range strings.Lines(r.section("ANSWER")) {
		// name, TTL, class, type, data
		if fields := strings.Fields(line); len(fields) > 4 {
			data = append(data, strings.Join(fields[4:], " "))
		}
	}
	return strings.Join(data, "\n")
}

func (r reply) section(name string) string {
	_, after, _ := strings.Cut(r.text, ";; "+name+" SECTION:\n")
	lines, _, _ := strings.Cut(after, "\n\n")
	return lines
}
