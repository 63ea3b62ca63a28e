// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// relays are what the benchmarks compare: Pipe, two loops of io.Copy, and none.
var relays = []struct {
	name string
	join func(a, b socketbridge.HalfCloser)
}{
	{"Pipe", func(a, b socketbridge.HalfCloser) { _ = socketbridge.Pipe(a, b) }},
	{"io.Copy", func(a, b socketbridge.HalfCloser) {
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(a, b); _ = a.CloseWrite() })
		_, _ = io.Copy(b, a)
		_ = b.CloseWrite()
		wg.Wait()
		_, _ = a.Close(), b.Close()
	}},
}

// routes are the kinds of connection on both sides of a relay.
var routes = [][2]string{{"unix", "unix"}, {"unix", "tcp"}, {"tcp", "unix"}, {"tcp", "tcp"}}

func benchmark(b *testing.B, run func(b *testing.B, client, server socketbridge.HalfCloser)) {
	for _, route := range routes {
		for _, relay := range relays {
			b.Run(route[0]+"-"+route[1]+"/"+relay.name, func(b *testing.B) {
				client, near := kind(b, route[0])
				server, far := kind(b, route[1])
				var wg sync.WaitGroup
				wg.Go(func() { relay.join(near, far) })
				b.ReportAllocs()
				b.ResetTimer()
				run(b, client, server)
				b.StopTimer()
				_, _ = client.Close(), server.Close()
				wg.Wait()
			})
		}
	}
}

// BenchmarkThroughput sends 256 KB at a time.
func BenchmarkThroughput(b *testing.B) {
	const chunk = 256 << 10
	benchmark(b, func(b *testing.B, client, server socketbridge.HalfCloser) {
		b.SetBytes(chunk)
		go func() {
			buf := make([]byte, chunk)
			for range b.N {
				if _, err := client.Write(buf); err != nil {
					return
				}
			}
		}()
		buf := make([]byte, chunk)
		for range b.N {
			if _, err := io.ReadFull(server, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWrapped sends chunks between connections that are copied, each chunk one Read.
func BenchmarkWrapped(b *testing.B) {
	type wrapped struct{ socketbridge.HalfCloser }
	for _, size := range []int{1, 8, 16, 32, 256} {
		for _, relay := range relays {
			b.Run(fmt.Sprintf("%dKB/%s", size, relay.name), func(b *testing.B) {
				client, near := kind(b, "memory")
				server, far := kind(b, "memory")
				var wg sync.WaitGroup
				wg.Go(func() { relay.join(wrapped{near}, wrapped{far}) })
				buf := make([]byte, size<<10)
				b.SetBytes(int64(len(buf)))
				b.ResetTimer()
				go func() {
					for range b.N {
						_, _ = client.Write(buf)
					}
				}()
				got := make([]byte, len(buf))
				for range b.N {
					if _, err := io.ReadFull(server, got); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				_, _ = client.Close(), server.Close()
				wg.Wait()
			})
		}
	}
}

// BenchmarkRoundTrip is one byte there and one back.
func BenchmarkRoundTrip(b *testing.B) {
	benchmark(b, func(b *testing.B, client, server socketbridge.HalfCloser) {
		go func() {
			_, _ = io.CopyBuffer(struct{ io.Writer }{server}, struct{ io.Reader }{server}, make([]byte, 1))
		}()
		one := make([]byte, 1)
		for range b.N {
			_, err := client.Write(one)
			require.NoError(b, err)
			_, err = io.ReadFull(client, one)
			require.NoError(b, err)
		}
	})
}

// BenchmarkConnection is a request and a reply of 1 KB each on a new connection.
func BenchmarkConnection(b *testing.B) {
	for _, relay := range relays {
		b.Run(relay.name, func(b *testing.B) {
			ln, err := new(net.ListenConfig).Listen(b.Context(), "unix", b.TempDir()+"/s")
			require.NoError(b, err)
			defer func() { _ = ln.Close() }()
			buf := make([]byte, 1024)
			b.ReportAllocs()
			for b.Loop() {
				ends := [4]socketbridge.HalfCloser{}
				for i := 0; i < 4; i += 2 {
					dialed, err := new(net.Dialer).DialContext(b.Context(), "unix", ln.Addr().String())
					require.NoError(b, err)
					accepted, err := ln.Accept()
					require.NoError(b, err)
					ends[i], ends[i+1] = dialed.(socketbridge.HalfCloser), accepted.(socketbridge.HalfCloser)
				}
				var wg sync.WaitGroup
				wg.Go(func() { relay.join(ends[1], ends[2]) })
				for _, way := range [][2]socketbridge.HalfCloser{{ends[0], ends[3]}, {ends[3], ends[0]}} {
					_, err := way[0].Write(buf)
					require.NoError(b, err)
					_, err = io.ReadFull(way[1], buf)
					require.NoError(b, err)
				}
				_, _ = ends[0].Close(), ends[3].Close()
				wg.Wait()
			}
		})
	}
}
