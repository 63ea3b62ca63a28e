// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// patience only bounds how long a broken test hangs.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The default network.
var (
	network   = netip.MustParsePrefix("192.168.127.0/24")
	gateway   = netip.MustParseAddr("192.168.127.1")
	hostAlias = netip.MustParseAddr("192.168.127.254")
	world     = netip.MustParseAddr("198.51.100.7") // TEST-NET-2: dialled by hooks only

	gatewayMAC = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd}
	guestMAC   = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
)

// guestAddr is the address of guest n of the default network, macOf its MAC: 2 is
// the one that the default lease is for.
func guestAddr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 127, n}) }

func macOf(n byte) packet.MAC {
	if n == 2 {
		return guestMAC
	}
	return packet.MAC{0x02, 0, 0, 0, 0, n}
}

func newSwitch(t testing.TB, cfg hostswitch.Config) *hostswitch.Switch {
	t.Helper()
	sw, err := hostswitch.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sw.Close()) })
	return sw
}

// A guest is one end of a cable whose other end is attached to a Switch.
type guest struct {
	*netstack.Stack // nil: the test itself speaks
	mac             packet.MAC
	addr            netip.Addr
	conn            net.Conn
	attached        chan error // what Attach returned
	unplug          func()     // ends the connection and waits for Attach

	out     *frame.Queue
	mu      sync.Mutex
	watches []watch
}

type watch struct {
	match func(packet.Ethernet) bool
	to    chan []byte
}

// attachRaw attaches a guest that does only what the test does.
func attachRaw(t testing.TB, sw *hostswitch.Switch, n byte) *guest { return plug(t, sw, n, nil) }

// attach attaches a guest with a network stack, an address and a default route.
func attach(t testing.TB, sw *hostswitch.Switch, n byte) *guest {
	g := &guest{mac: macOf(n), out: frame.NewQueue(8 << 20)}
	st, err := netstack.New(netstack.Config{MTU: 1500, MAC: g.mac[:], Output: func(_ packet.MAC, h frame.Header, parts [][]byte) { g.out.PutOffload(h, parts...) }})
	require.NoError(t, err)
	g.Stack = st
	require.NoError(t, st.AddAddress(netip.PrefixFrom(guestAddr(n), network.Bits())))
	require.NoError(t, st.SetRoutes(network, gateway))
	return plug(t, sw, n, g)
}

func plug(t testing.TB, sw *hostswitch.Switch, n byte, g *guest) *guest {
	if g == nil {
		g = &guest{out: frame.NewQueue(8 << 20)}
	}
	g.mac, g.addr, g.attached = macOf(n), guestAddr(n), make(chan error, 1)
	var far net.Conn
	g.conn, far = net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wires sync.WaitGroup
	name := "guest " + strconv.Itoa(int(n))
	namesakes := func() (count int) {
		for _, p := range sw.Snapshot().Ports {
			if p.Name == name {
				count++
			}
		}
		return count
	}
	before := namesakes()
	wires.Go(func() { g.attached <- sw.Attach(ctx, far, hostswitch.Port{Name: name}) })
	wires.Go(func() { _ = g.out.Drain(g.conn) })
	wires.Go(func() {
		for r := frame.NewReader(g.conn); ; {
			f, err := r.Next()
			if err != nil {
				return
			}
			g.received(f)
		}
	})
	g.unplug = sync.OnceFunc(func() {
		if g.Stack != nil {
			g.Stack.Close()
		}
		cancel()
		g.out.Close()
		_ = g.conn.Close()
		wires.Wait()
	})
	t.Cleanup(g.unplug)
	for deadline := time.Now().Add(patience); namesakes() == before; runtime.Gosched() {
		require.True(t, time.Now().Before(deadline), "the guest is not attached")
	}
	return g
}

func (g *guest) received(f []byte) {
	g.mu.Lock()
	if e, ok := packet.ParseEthernet(f); ok {
		for _, w := range g.watches {
			if w.match(e) {
				select {
				case w.to <- slices.Clone(f):
				default:
				}
			}
		}
	}
	g.mu.Unlock()
	if g.Stack != nil {
		g.Stack.Deliver(f)
	}
}

// watch collects the frames for the guest that match, from now on.
func (g *guest) watch(match func(packet.Ethernet) bool) <-chan []byte {
	w := watch{match, make(chan []byte, 1024)}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watches = append(g.watches, w)
	return w.to
}

// unwatch ends a watch.
func (g *guest) unwatch(seen <-chan []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watches = slices.DeleteFunc(g.watches, func(w watch) bool { return w.to == seen })
}

// send puts a raw frame on the cable.
func (g *guest) send(f []byte) { g.out.Put(f) }

// get asks the gateway's HTTP API, as this guest.
func (g *guest) http() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return g.DialTCP(ctx, netip.AddrPort{}, netip.MustParseAddrPort(addr))
		},
	}}
}

// dial connects the guest to an address.
func (g *guest) dial(t testing.TB, to netip.AddrPort) *netstack.Conn {
	t.Helper()
	c, err := g.DialTCP(withTimeout(t), netip.AddrPort{}, to)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// serve makes the guest listen on a port; handle is run for each connection.
func (g *guest) serve(t testing.TB, port uint16, handle func(net.Conn)) {
	t.Helper()
	ln, err := g.ListenTCP(netip.AddrPortFrom(g.addr, port))
	require.NoError(t, err)
	serve(t, ln, handle)
}

// hostTCP is a server on the host's loopback; it returns how guests reach it.
func hostTCP(t testing.TB, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	serve(t, ln, handle)
	return netip.AddrPortFrom(hostAlias, ln.Addr().(*net.TCPAddr).AddrPort().Port())
}

// hostUDP is an echo server on the host's loopback.
func hostUDP(t testing.TB) netip.AddrPort {
	t.Helper()
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	require.NoError(t, err)
	echoPackets(t, pc)
	return netip.AddrPortFrom(hostAlias, pc.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

// echoPackets answers every datagram with itself.
func echoPackets(t testing.TB, pc net.PacketConn) {
	done := during(func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	})
	t.Cleanup(func() { _ = pc.Close(); <-done })
}

func serve(t testing.TB, ln net.Listener, handle func(net.Conn)) {
	var conns sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if passes := syscall.Errno(0); errors.As(err, &passes) {
				continue // whoever it was is gone again
			} else if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			conns.Go(func() {
				handle(c)
				_ = c.Close()
				mu.Lock()
				defer mu.Unlock()
				delete(open, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
}

// echo answers what it reads, and the end with the end.
func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// exchange sends a request, half-closes, and returns the whole answer.
func exchange(t testing.TB, c net.Conn, request string) string {
	t.Helper()
	_, err := io.WriteString(c, request)
	require.NoError(t, err)
	require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
	answer, err := io.ReadAll(c)
	require.NoError(t, err)
	return string(answer)
}

func withTimeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// during runs f elsewhere, and returns a channel that is closed when it is done.
func during(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return done
}

// await receives, or fails the test when nothing comes.
func await[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		require.FailNow(t, "still waiting: "+what)
		panic("not reached")
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, patience, 5*time.Millisecond, what)
}

// A journal is a logger's memory.
type journal struct {
	slog.Handler
	mu      *sync.Mutex
	records *[]slog.Record
}

func newJournal() journal {
	return journal{slog.DiscardHandler, new(sync.Mutex), new([]slog.Record)}
}

func (j journal) Enabled(context.Context, slog.Level) bool { return true }

func (j journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	*j.records = append(*j.records, r)
	return nil
}

// from returns the messages of a level and above.
func (j journal) from(level slog.Level) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var messages []string
	for _, r := range *j.records {
		if r.Level >= level {
			m := r.Message
			r.Attrs(func(a slog.Attr) bool { m += " " + a.String(); return true })
			messages = append(messages, m)
		}
	}
	return messages
}
