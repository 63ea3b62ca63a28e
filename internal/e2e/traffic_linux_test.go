// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Forwards of the traffic tests, on the host's loopback, where its own services
// are as well.
const (
	forwardedHTTP  = "127.0.0.1:8080"
	forwardedEcho  = "127.0.0.1:8007" // TCP and UDP
	forwardedLate  = "127.0.0.1:8200"
	forwardedSoon  = "127.0.0.1:8201"
	forwardedNone  = "127.0.0.1:8202"
	forwardedIperf = "127.0.0.1:5201"
)

func forwards() []string {
	var args []string
	for local, port := range map[string]string{
		"tcp:" + forwardedHTTP: portHTTP, "tcp:" + forwardedEcho: portEcho, "UDP:" + forwardedEcho: portEcho,
		"tcp:" + forwardedLate: portLate, "tcp:" + forwardedSoon: portSoon, "tcp:" + forwardedNone: portNone,
		"tcp:" + forwardedIperf: "5201",
	} {
		args = append(args, "-forward", local+"="+guestAddr+":"+port)
	}
	return args
}

// newTrafficLab is a lab with a guest that has services, all of them forwarded.
func newTrafficLab(t *testing.T, p programs, args ...string) *lab {
	t.Helper()
	l := newLab(t, p, append(forwards(), args...)...)
	l.startGuest()
	serve(t, l.guest, "0.0.0.0")
	return l
}

// testTraffic carries all that people carry, both ways.
func testTraffic(mtu int) func(*testing.T, programs) {
	return func(t *testing.T, p programs) {
		l := newTrafficLab(t, p, "-mtu", strconv.Itoa(mtu))
		t.Run("path", func(t *testing.T) {
			eth0, ok := tryLink(l.guest, "eth0")
			require.True(t, ok)
			require.Equal(t, mtu, eth0.MTU)
			most := mtu - 20 - 8 // IPv4 and ICMP headers
			for _, a := range []string{gateway, hostAlias} {
				l.guest.run("ping", "-c", "1", "-W", "10", "-M", "do", "-s", strconv.Itoa(most), a)
				out, err := l.guest.try("ping", "-c", "1", "-W", "1", "-M", "do", "-s", strconv.Itoa(most+1), a)
				require.Error(t, err, "the path takes more than the MTU: %s", out)
			}
		})
		t.Run("names", func(t *testing.T) {
			require.Equal(t, banner(l.world), l.guest.run("curl", "-sS", "http://www.example.test/"))
			require.Equal(t, banner(l.host), l.guest.run("curl", "-sS", "http://host.docker.internal/"))
		})
		for name, way := range map[string]struct {
			from, to *namespace
			address  string
		}{
			"guest to world":    {l.guest, l.world, worldAddr},
			"guest to loopback": {l.guest, l.host, hostAlias},
			"host to guest":     {l.host, l.guest, forwardedHTTP},
		} {
			t.Run(name, func(t *testing.T) {
				require.Equal(t, banner(way.to), way.from.run("curl", "-sS", "http://"+way.address))
				transfer(t, way.from, way.address)
			})
		}
		t.Run("iperf3", func(t *testing.T) {
			iperf3(t, l.guest, worldAddr, l.world)
			iperf3(t, l.host, "127.0.0.1", l.guest)
		})
		t.Run("UDP", func(t *testing.T) { testUDP(t, l) })
	}
}

// transfer takes the blob from an HTTP server, and gives it to it.
func transfer(t *testing.T, from *namespace, address string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "blob")
	from.run("curl", "-sS", "-o", file, "http://"+address+"/blob")
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(blob, got), "%d bytes came, not the %d that were sent", len(got), len(blob))
	require.Equal(t, blobSum(), from.run("curl", "-sS", "-T", file, "http://"+address+"/sum"))
}

// iperf3 sends and receives a bounded amount. How fast that is, is not asked here.
func iperf3(t *testing.T, from *namespace, address string, to *namespace) {
	t.Helper()
	for _, direction := range [][]string{nil, {"--reverse"}} {
		server := start(t, to.inside("iperf3", "-s", "-1", "--forceflush")...)
		server.WaitLog("Server listening")
		out := from.run(append([]string{"iperf3", "-c", address, "-n", "16M", "--json"}, direction...)...)
		var result struct {
			End struct {
				Received struct{ Bytes int } `json:"sum_received"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(out), &result), out)
		require.Positive(t, result.End.Received.Bytes, out)
		_ = server.Wait()
	}
}

// testUDP: datagrams come back whole whatever their size, and a pair of addresses
// works again when its socket was closed and another opened. FAILURES 31: a
// forward for "UDP" is one for UDP.
func testUDP(t *testing.T, l *lab) {
	for name, way := range map[string]struct {
		from           *namespace
		local, address string
	}{
		"guest to world":    {l.guest, guestAddr + ":4001", worldAddr + ":" + portEcho},
		"guest to loopback": {l.guest, guestAddr + ":4002", hostAlias + ":" + portEcho},
		"host to guest":     {l.host, "127.0.0.1:4003", forwardedEcho},
	} {
		t.Run(name, func(t *testing.T) {
			for again := range 2 {
				pc := way.from.listenPacket(way.local)
				for _, size := range []int{1, 1400, 1472, 1473, 4000, 20000, 60000} {
					echo(t, pc, way.address, strings.Repeat(strconv.Itoa(again), size))
				}
				require.NoError(t, pc.Close())
			}
		})
	}
}

// echo sends a datagram until the same comes back: any may be lost.
func echo(t *testing.T, pc net.PacketConn, address, payload string) {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp4", address)
	require.NoError(t, err)
	buf := make([]byte, 1<<16)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		_, err := pc.WriteTo([]byte(payload), to)
		require.NoError(t, err)
		require.NoError(t, pc.SetReadDeadline(time.Now().Add(2*time.Second)))
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				break // send it again
			}
			require.Equal(t, address, from.String())
			if string(buf[:n]) == payload {
				return
			}
		}
	}
	require.FailNow(t, "no echo", "%d bytes to %s", len(payload), address)
}

// testPing: an answer is the destination's own, and where nobody is there is none.
func testPing(t *testing.T, p programs) {
	l := newLab(t, p)
	l.startGuest()
	ping := func(address string) (answers int) {
		t.Helper()
		out, err := l.guest.try("ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", address)
		_, statistics, _ := strings.Cut(out, "packets transmitted, ")
		_, scanErr := fmt.Sscan(statistics, &answers)
		require.NoError(t, scanErr, out)
		require.Equal(t, answers > 0, err == nil, out)
		return answers
	}
	for name, address := range map[string]string{"gateway": gateway, "host alias": hostAlias} {
		t.Run(name, func(t *testing.T) { require.Positive(t, ping(address)) })
	}
	t.Run("world", func(t *testing.T) {
		before := echoesAnswered(l.world)
		answers := ping(worldAddr)
		require.Positive(t, answers)
		require.GreaterOrEqual(t, echoesAnswered(l.world)-before, answers, "somebody else has answered")
	})
	t.Run("blackhole", func(t *testing.T) { require.Zero(t, ping(nobody)) })
	t.Run("unassigned in the subnet", func(t *testing.T) { require.Zero(t, ping("192.168.127.77")) })
	t.Run("host that may not ping", func(t *testing.T) {
		l.host.sysctl("net.ipv4.ping_group_range", "1 0")
		require.Zero(t, ping(worldAddr))
		require.Positive(t, ping(gateway))
	})
}

// echoesAnswered returns how many echo replies the namespace's kernel has sent.
func echoesAnswered(n *namespace) (count int) {
	n.t.Helper()
	var text []byte
	require.NoError(n.t, n.do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	}))
	var header []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case fields[0] != "Icmp:":
		case header == nil:
			header = fields
		default:
			for i, name := range header {
				if name == "OutEchoReps" {
					_, err := fmt.Sscan(fields[i], &count)
					require.NoError(n.t, err)
				}
			}
		}
	}
	return count
}
