// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// connect opens a TCP connection from one guest to the other.
func (p *pair) connect(t *testing.T, from int) (client, server net.Conn) {
	t.Helper()
	to := 1 - from
	var ln net.Listener
	p.ns[to].do(func() (err error) {
		ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp4", netip.AddrPortFrom(p.addrs[to], 0).String())
		return err
	})
	defer ln.Close() //nolint:errcheck // it has done its duty
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p.ns[from].do(func() (err error) {
		client, err = (&net.Dialer{}).DialContext(ctx, "tcp4", ln.Addr().String())
		return err
	})
	server, err := ln.Accept()
	require.NoError(t, err)
	for _, c := range []net.Conn{client, server} {
		require.NoError(t, c.SetDeadline(time.Now().Add(5*patience)))
		t.Cleanup(func() { _ = c.Close() })
	}
	return client, server
}

// exchange sends n bytes each way at once, and compares.
func (p *pair) exchange(t *testing.T, from int, n int64) {
	t.Helper()
	client, server := p.connect(t, from)
	type result struct {
		sum []byte
		err error
	}
	results := [2][2]chan result{}
	for i, ends := range [2][2]net.Conn{{client, server}, {server, client}} {
		results[i] = [2]chan result{make(chan result, 1), make(chan result, 1)}
		go func() {
			h := sha256.New()
			noise := io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), n)
			_, err := io.Copy(ends[0], io.TeeReader(noise, h))
			_ = ends[0].(*net.TCPConn).CloseWrite()
			results[i][0] <- result{h.Sum(nil), err}
		}()
		go func() {
			h := sha256.New()
			_, err := io.Copy(h, ends[1])
			results[i][1] <- result{h.Sum(nil), err}
		}()
	}
	for i := range results {
		sent, got := <-results[i][0], <-results[i][1]
		require.NoError(t, sent.err)
		require.NoError(t, got.err)
		require.Equal(t, sent.sum, got.sum)
	}
}

func TestTCPBothWays(t *testing.T) {
	lossy := func(int) pass { // drops one of 50, and swaps one of 20 with the next
		rng := rand.New(rand.NewPCG(1, 2))
		var held *record
		return func(r record) []record {
			switch n := rng.IntN(100); {
			case held != nil:
				out := []record{r, *held}
				held = nil
				return out
			case n < 2:
				return nil
			case n < 7:
				held = &r
				return nil
			}
			return []record{r}
		}
	}
	for name, c := range map[string]struct {
		plain bool
		bytes int64
		each  func(int) pass
	}{
		"offload":                          {false, 64 << 20, nil},
		"offload, lossy":                   {false, 8 << 20, lossy},
		"a host that does not know it":     {true, 64 << 20, nil},
		"a host that does not know, lossy": {true, 2 << 20, lossy},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, c.plain, c.each, nil)
			p.exchange(t, 0, c.bytes)
			p.exchange(t, 1, c.bytes/8)
			for _, r := range p.runs {
				s := r.guest.Stats()
				require.Zero(t, s.Refused)
				require.Zero(t, s.Dropped)
				r.stop()
			}
			p.wait()
			for _, n := range p.large {
				require.Equal(t, c.plain, n == 0, "%d super-frames", n)
			}
		})
	}
}

// What a container behind the guest sends and gets, whose MTU is that of any
// interface, stays whole on its way through the guest.
func TestContainerBehindTheGuest(t *testing.T) {
	p := newPair(t, false, nil, nil)
	guest, container := p.runs[0].ns, newNamespace(t)
	require.NoError(t, guest.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(container.fd),
	}))
	guest.ip("addr", "add", "10.9.0.1/24", "dev", "veth0")
	guest.ip("link", "set", "veth0", "up")
	guest.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	container.ip("addr", "add", "10.9.0.2/24", "dev", "eth0")
	container.ip("link", "set", "eth0", "up")
	container.ip("route", "add", "default", "via", "10.9.0.1")
	p.runs[1].ns.ip("route", "add", "10.9.0.0/24", "via", p.addrs[0].String())
	p.ns[0], p.addrs[0] = container, netip.AddrFrom4([4]byte{10, 9, 0, 2})

	p.exchange(t, 0, 32<<20)
	p.exchange(t, 1, 4<<20)
	guest.ip("link", "del", "veth0")
	for _, r := range p.runs {
		require.Zero(t, r.guest.Stats().Refused)
		r.stop()
	}
	p.wait()
	require.Positive(t, p.large[0])
	require.Positive(t, p.large[1])
}

// A capture sees frames that were never longer than the MTU, with their checksums.
func TestTraceSeesPlainFrames(t *testing.T) {
	var frames, payload, wrong atomic.Int64
	p := newPair(t, false, nil, func(_ bool, f []byte) {
		eth, _ := packet.ParseEthernet(f)
		ip, ok := packet.ParseIPv4(eth.Payload)
		if eth.Type != packet.EtherIPv4 {
			return
		}
		frames.Add(1)
		if !ok || len(f) > 1514 || tcpSum(ip) != 0 {
			wrong.Add(1)
		}
		if ip.Proto == packet.ProtoTCP {
			payload.Add(int64(len(ip.Payload) - int(ip.Payload[12]>>4)*4))
		}
	})
	const n = 4 << 20
	p.exchange(t, 0, n)
	for _, r := range p.runs {
		r.stop()
	}
	p.wait()
	require.Positive(t, p.large[0]+p.large[1])
	require.Zero(t, wrong.Load())
	require.Greater(t, frames.Load(), int64(4*n/1460))
	require.GreaterOrEqual(t, payload.Load(), int64(4*n)) // each way, at each guest
}

// tcpSum is 0 if the checksum of the segment in ip is right.
func tcpSum(ip packet.IPv4) uint16 {
	if ip.Proto != packet.ProtoTCP {
		return 0
	}
	s, d := ip.Src.As4(), ip.Dst.As4()
	n := len(ip.Payload)
	pseudo := append(append(s[:], d[:]...), 0, ip.Proto, byte(n>>8), byte(n))
	return packet.Checksum(uint32(packet.Sum(0, pseudo)), ip.Payload)
}
