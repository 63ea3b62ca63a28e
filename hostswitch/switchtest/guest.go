// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package switchtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// What a test may want to tell apart with [errors.Is].
var (
	// ErrClosed is returned by calls on a Guest whose connection has ended, by
	// [Guest.Close] or from the other side. It Is [net.ErrClosed] too.
	ErrClosed = fmt.Errorf("the guest's connection has ended: %w", net.ErrClosed)
	// ErrNoAddress is returned for what needs an address before there is one:
	// call [Guest.DHCP] or [Guest.Static] first.
	ErrNoAddress = errors.New("the guest has no address: call DHCP or Static first")
	// ErrRefused is returned by [Guest.DHCP] when the server says no (DHCPNAK).
	ErrRefused = errors.New("the DHCP server refuses the address")
)

// egressQueue is what the guest holds back, in bytes, when nobody takes its
// frames; further ones are dropped, as a network card would.
const egressQueue = 4 << 20

// DefaultMAC is the guest that the zero [hostswitch.Config] has a static lease
// for.
func DefaultMAC() net.HardwareAddr { return net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee} }

// Config says what a [Guest] is. The zero Config is a guest with [DefaultMAC].
type Config struct {
	// MAC of the guest. nil: DefaultMAC. Two guests on one Switch need different
	// ones: one of the same MAC and Hostname takes the other's place, and one of the
	// same MAC and another Hostname is not heard.
	MAC      net.HardwareAddr
	MTU      int    // in bytes, until a lease says otherwise; 0: 1500
	Hostname string // told to the DHCP server; empty: none
	// Frames, if not nil, sees every Ethernet frame that the guest receives
	// (in) or sends, SendFrame's included. It is called concurrently; it must
	// neither block nor keep or change the frame.
	Frames func(in bool, frame []byte)
	Logger *slog.Logger // nil: silent
}

// A Guest is a machine on a virtual network. Its methods may be called
// concurrently.
type Guest struct {
	cfg    Config
	mac    packet.MAC
	log    *slog.Logger
	conn   net.Conn
	stack  *netstack.Stack
	queue  *frame.Queue
	client *http.Client
	pingID uint16

	closing chan struct{} // closed by Close
	once    sync.Once
	done    chan struct{} // closed when every goroutine has ended
	err     error         // why; to be read after done

	leasing sync.Mutex // held by DHCP and Static, one at a time

	mu      sync.Mutex
	lease   Lease
	replies chan<- *dhcpv4.DHCPv4 // of the DHCP exchange under way
	pings   map[uint16]chan<- netip.Addr
	pingSeq uint16
}

// NewGuest starts a guest whose frames conn carries in the plain format:
// 16 bits of length, little-endian, and the Ethernet frame. It owns conn from
// here on, also when it returns an error, which names the wrong field of cfg.
func NewGuest(conn net.Conn, cfg Config) (*Guest, error) {
	return start(conn, cfg, func() error { return nil })
}

// Attach starts a guest that is attached to sw by a connection in memory, and
// carries that connection until [Guest.Close]. In sw's snapshot and events its
// port is called by cfg.Hostname, or by its MAC if that is empty. An error names
// the wrong field of cfg, or is that of [hostswitch.Switch.Attach]:
// [hostswitch.ErrClosed], for one.
func Attach(sw *hostswitch.Switch, cfg Config) (*Guest, error) {
	if sw == nil {
		return nil, errors.New("switchtest: Attach needs a Switch: make one with hostswitch.New")
	}
	name := cfg.Hostname
	if name == "" {
		name = macOrDefault(cfg.MAC).String()
	}
	inside, outside := net.Pipe()
	attached := make(chan error, 1)
	carried := &firstRead{Conn: outside, begun: make(chan struct{})}
	go func() { // joined by start's last argument, and ended by the other end of the pipe
		attached <- sw.Attach(context.Background(), carried, hostswitch.Port{Name: name})
	}()
	select {
	case <-carried.begun:
	case err := <-attached:
		_ = inside.Close()
		return nil, fmt.Errorf("switchtest: %w", err)
	}
	join := func() error { return <-attached }
	g, err := start(inside, cfg, join)
	if err != nil {
		_ = join()
	}
	return g, err
}

// A firstRead tells when it is read from, and so was taken.
type firstRead struct {
	net.Conn
	once  sync.Once
	begun chan struct{}
}

func (c *firstRead) Read(b []byte) (int, error) {
	c.once.Do(func() { close(c.begun) })
	return c.Conn.Read(b)
}

func macOrDefault(mac net.HardwareAddr) net.HardwareAddr {
	if mac == nil {
		return DefaultMAC()
	}
	return slices.Clone(mac)
}

// start makes a guest; join waits for whoever serves the other end of conn, and
// returns what ended it.
func start(conn net.Conn, cfg Config, join func() error) (*Guest, error) {
	cfg.MAC = macOrDefault(cfg.MAC)
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	fail := func(err error) (*Guest, error) {
		_ = conn.Close()
		return nil, fmt.Errorf("switchtest: %w", err)
	}
	if len(cfg.MAC) != 6 || cfg.MAC[0]&1 != 0 {
		return fail(fmt.Errorf("Config.MAC: %q is no unicast address of 6 bytes", cfg.MAC))
	}
	if cfg.MTU < minMTU || cfg.MTU > maxMTU {
		return fail(fmt.Errorf("Config.MTU: %d is not between %d and %d", cfg.MTU, minMTU, maxMTU))
	}
	g := &Guest{
		cfg: cfg, mac: packet.MAC(cfg.MAC), log: cfg.Logger.With("guest", cfg.MAC.String()), conn: conn,
		queue:   frame.NewQueue(egressQueue),
		pingID:  uint16(rand.Uint32()),
		closing: make(chan struct{}), done: make(chan struct{}),
		pings: make(map[uint16]chan<- netip.Addr),
	}
	// A connection that is kept alive would keep goroutines beyond Close.
	g.client = &http.Client{Transport: &http.Transport{DialContext: g.DialContext, DisableKeepAlives: true}}
	var err error
	g.stack, err = netstack.New(netstack.Config{
		MTU: cfg.MTU, MAC: cfg.MAC,
		Output: func(_ packet.MAC, h frame.Header, parts [][]byte) { g.send(h, parts...) },
	})
	if err != nil {
		return fail(err)
	}
	go g.run(join)
	return g, nil
}

// run owns the guest's goroutines, and ends it with its connection.
func (g *Guest) run(join func() error) {
	defer close(g.done)
	var writer sync.WaitGroup
	var writeErr error
	writer.Go(func() {
		writeErr = g.queue.Drain(g.conn)
		_ = g.conn.Close()
	})
	err := g.read()
	g.queue.Close()
	_ = g.conn.Close()
	writer.Wait()
	g.stack.Close()
	attachErr := join()
	select {
	case <-g.closing:
		return // that is why
	default:
	}
	switch {
	case attachErr != nil:
		g.err = fmt.Errorf("switchtest: %w", attachErr)
	case writeErr != nil:
		g.err = fmt.Errorf("switchtest: write: %w", writeErr)
	case !errors.Is(err, io.EOF):
		g.err = fmt.Errorf("switchtest: read: %w", err)
	}
	g.log.Info("the other side ended the connection", "error", g.err)
}

func (g *Guest) read() error {
	for r := frame.NewReader(g.conn); ; {
		f, err := r.Next()
		if err != nil {
			return err
		}
		if g.cfg.Frames != nil {
			g.cfg.Frames(true, f)
		}
		if !g.take(f) {
			g.stack.Deliver(f)
		}
	}
}

// take handles what the guest does itself, beside its stack: DHCP, and the
// answers to Ping.
func (g *Guest) take(f []byte) bool {
	eth, ok := packet.ParseEthernet(f)
	if !ok || eth.Type != packet.EtherIPv4 || eth.Dst != g.mac && !eth.Dst.Multicast() {
		return false
	}
	ip, ok := packet.ParseIPv4(eth.Payload)
	if !ok {
		return false
	}
	if udp, ok := packet.ParseUDP(ip); ok && udp.DstPort == bootpClient {
		g.takeDHCP(udp.Payload)
		return true
	}
	if echo, ok := packet.ParseEcho(ip); ok && echo.Reply && echo.ID == g.pingID {
		g.takeEcho(ip.Src, echo.Seq)
		return true
	}
	return false
}

func (g *Guest) send(h frame.Header, parts ...[]byte) bool {
	if g.cfg.Frames != nil {
		new(frame.Segmenter).Segment(h, parts, func(pieces [][]byte) { g.cfg.Frames(false, slices.Concat(pieces...)) })
	}
	return g.queue.PutOffload(h, parts...)
}

// SendFrame sends an Ethernet frame as it is, well-formed or not, of 1 to 65,535
// bytes. It does not wait; the error says why the frame was dropped.
func (g *Guest) SendFrame(f []byte) error {
	if len(f) == 0 || len(f) > frame.MaxLen {
		return fmt.Errorf("switchtest: send frame: %d bytes are not between 1 and %d", len(f), frame.MaxLen)
	}
	if g.send(frame.Header{}, f) {
		return nil
	}
	if g.ended() {
		return fmt.Errorf("switchtest: send frame: %w", ErrClosed)
	}
	return errors.New("switchtest: send frame: the queue is full: the other side takes no frames")
}

// MAC returns the guest's Ethernet address.
func (g *Guest) MAC() net.HardwareAddr { return slices.Clone(g.cfg.MAC) }

// Addr returns the guest's address, the zero Addr if it has none yet.
func (g *Guest) Addr() netip.Addr { return g.Lease().Addr.Addr() }

// Done is closed when the connection and all that the guest runs has ended.
func (g *Guest) Done() <-chan struct{} { return g.done }

// Err returns what ended the connection: nil while it lasts, and when either
// side simply closed it. When the Switch was closed it Is [hostswitch.ErrClosed] for
// a guest from [Attach]; one from [NewGuest] knows only how its connection ended.
func (g *Guest) Err() error {
	select {
	case <-g.done:
		return g.err
	default:
		return nil
	}
}

// Close unplugs the guest: its connections are reset, its listeners closed, and
// its goroutines have ended when it returns. It may be called more than once;
// each call waits. It returns nil.
func (g *Guest) Close() error {
	g.once.Do(func() { close(g.closing) })
	g.stack.Close()
	g.queue.Close()
	_ = g.conn.Close()
	<-g.done
	return nil
}

func (g *Guest) ended() bool {
	select {
	case <-g.closing:
		return true
	case <-g.done:
		return true
	default:
		return false
	}
}

// fault adds the package's error to one that comes of the end of the guest.
func (g *Guest) fault(err error) error {
	if errors.Is(err, netstack.ErrClosed) {
		return fmt.Errorf("switchtest: %w", ErrClosed)
	}
	return err
}
