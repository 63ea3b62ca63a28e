// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/capture"
	"github.com/rancher-sandbox/guestnet/hostswitch/internal/dhcpserver"
	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
)

// ErrClosed is what calls on a closed Switch return. It Is [net.ErrClosed] too.
var ErrClosed = fmt.Errorf("hostswitch: the switch is closed: %w", net.ErrClosed)

// A Switch is a virtual network. Make it with [New].
type Switch struct {
	net   network
	log   *slog.Logger
	stack *netstack.Stack
	dhcp  *dhcpserver.Server
	dns   *nameserver.Server

	cam     *cam
	capture capture.Tap
	events  events
	flows   *flowTable // datagrams: UDP out, UDP forwards, ICMP echo
	buffers sync.Pool  // of *[]byte, as long as the stack likes them

	// ctx ends when Close begins, which then waits for both groups.
	ctx                context.Context
	cancel             context.CancelFunc
	attached, services sync.WaitGroup
	relays             *quota // TCP connections through the gateway
	large              *quota // of the buffers that they may have

	mu        sync.Mutex // guards what follows, and writes to ports
	closed    bool
	lastPort  uint64
	seed      maphash.Seed                     // of what tells guests apart
	gone      totals                           // of the ports that are no more
	ports     atomic.Pointer[map[uint64]*port] // replaced, never changed: the data path reads it
	forwards  map[forwardKey]*forward
	closeDone chan struct{}
}

// New makes a virtual network and starts its services. An error names the field
// of Config that is wrong; nothing is left of a Switch that could not be made.
func New(cfg Config) (*Switch, error) {
	resolved, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	s := &Switch{
		net:       resolved,
		log:       resolved.Logger,
		cam:       newCAM(),
		forwards:  make(map[forwardKey]*forward),
		closeDone: make(chan struct{}),
	}
	s.ports.Store(&map[uint64]*port{})
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.flows = newFlowTable(s.ctx, maxFlows, maxGuestFlows)
	s.seed = maphash.MakeSeed()
	s.relays = newQuota(maxRelays, maxGuestRelays)
	s.large = newQuota(maxLargeBuffers, maxLargeBuffers/4)
	s.events.handler, s.events.snapshot = resolved.OnEvent, s.Snapshot
	if err := s.start(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// start makes the parts. Each is in its field as soon as it exists, so that
// Close finds it however far start came.
func (s *Switch) start() (err error) {
	n := &s.net
	var system *nameserver.System
	if n.Resolver == nil || n.SearchDomains == nil {
		system = nameserver.NewSystem(nameserver.SystemConfig{})
	}
	dnsConfig := nameserver.Config{Subnet: n.Subnet.Prefix, Logger: n.Logger}
	if dnsConfig.Resolver = n.Resolver; n.Resolver == nil {
		dnsConfig.Resolver = system
	}
	if s.dns, err = nameserver.New(dnsConfig); err != nil {
		return fmt.Errorf("hostswitch: DNS: %w", err)
	}
	for i, z := range asNameserverZones(n.Zones) {
		if err := s.dns.AddZone(z); err != nil {
			return fmt.Errorf("hostswitch: Config.Zones[%d]: %w", i, err)
		}
	}
	search := func() []string { return n.SearchDomains }
	if n.SearchDomains == nil {
		search = system.SearchDomains
	}
	if s.dhcp, err = dhcpserver.New(dhcpserver.Config{
		Subnet: n.Subnet.Prefix, Gateway: n.Subnet.Gateway, MTU: n.MTU,
		Static: n.Leases, Reserved: s.reserved(), Search: search,
	}); err != nil {
		return fmt.Errorf("hostswitch: Config.Leases: %w", err)
	}
	if s.stack, err = netstack.New(netstack.Config{MTU: n.MTU, MAC: n.GatewayMAC, Output: s.egress, Peer: s.peer, Router: true}); err != nil {
		return fmt.Errorf("hostswitch: %w", err)
	}
	s.buffers.New = func() any { b := make([]byte, 2*s.stack.WriteSize()); return &b }
	for _, a := range append([]netip.Addr{n.Subnet.Gateway}, s.reserved()...) {
		if err := s.stack.AddAddress(netip.PrefixFrom(a, n.Subnet.Prefix.Bits())); err != nil {
			return fmt.Errorf("hostswitch: Config.NAT: %w", err)
		}
	}
	if err := s.stack.SetRoutes(n.Subnet.Prefix, netip.Addr{}); err != nil {
		return fmt.Errorf("hostswitch: Config.Subnet: %w", err)
	}
	s.stack.HandleTCP(s.outboundTCP)
	s.stack.HandleUDP(s.outboundUDP)
	if err := s.serveDNS(); err != nil {
		return fmt.Errorf("hostswitch: DNS: %w", err)
	}
	if err := s.serveAPI(); err != nil {
		return fmt.Errorf("hostswitch: HTTP API: %w", err)
	}
	for i, f := range n.Forwards {
		if _, err := s.Expose(s.ctx, f); err != nil {
			if e, ok := errors.AsType[*ForwardError](err); ok {
				return configForwardError{i, e}
			}
			return fmt.Errorf("hostswitch: Config.Forwards[%d]: %w", i, err)
		}
	}
	return nil
}

// reserved lists the translated addresses inside the subnet, which are the
// gateway's.
func (s *Switch) reserved() []netip.Addr {
	var in []netip.Addr
	for a := range s.net.NAT {
		if s.net.Subnet.Prefix.Contains(a) {
			in = append(in, a)
		}
	}
	slices.SortFunc(in, netip.Addr.Compare)
	return in
}

func (s *Switch) serveDNS() error {
	at := netip.AddrPortFrom(s.net.Subnet.Gateway, 53)
	pc, err := s.stack.ListenUDP(at)
	if err != nil {
		return err
	}
	s.service("dns/udp", func() error { return s.dns.ServePacket(s.ctx, pc) })
	ln, err := s.stack.ListenTCP(at)
	if err != nil {
		return err
	}
	s.service("dns/tcp", func() error { return s.dns.ServeStream(s.ctx, ln) })
	return nil
}

// service runs a part of the Switch until Close; one that ends by itself is a
// bug that the log should show.
func (s *Switch) service(name string, run func() error) {
	s.services.Go(func() {
		if err := run(); err != nil && s.ctx.Err() == nil {
			s.log.Error("service ended", "service", name, "error", err)
		}
	})
}

// Capture writes every frame that the guests send and get to w, as pcapng, until
// ctx ends (nil), the Switch is closed (an error that Is [ErrClosed]) or w fails
// (its error). Several captures may run at once. A slow w loses frames, which
// the file's statistics count; it never slows the network down. Capture returns
// no sooner than a write under way.
func (s *Switch) Capture(ctx context.Context, w io.Writer) error {
	if s.ctx.Err() != nil {
		return fmt.Errorf("hostswitch: capture: %w", ErrClosed)
	}
	err := s.capture.Run(ctx, w, uint32(s.net.maxFrame))
	switch {
	case err != nil && !errors.Is(err, net.ErrClosed):
		return fmt.Errorf("hostswitch: capture: %w", err)
	case ctx.Err() == nil && s.ctx.Err() != nil:
		return fmt.Errorf("hostswitch: capture: %w", ErrClosed)
	default:
		return nil
	}
}

// Close ends the network: guests are disconnected, connections through it
// aborted, host ports freed. When it returns, every goroutine, socket and timer
// of the Switch is gone. It may be called more than once, and concurrently; each
// call waits. It returns nil.
func (s *Switch) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.closeDone
		return nil
	}
	s.closed = true
	forwards := s.forwards
	s.forwards = nil
	s.mu.Unlock()
	defer close(s.closeDone)

	s.cancel() // dials, services, flows, relays
	for _, f := range forwards {
		f.close()
	}
	for _, p := range *s.ports.Load() {
		p.end(ErrClosed)
	}
	s.attached.Wait() // from here on, no frame comes in
	if s.stack != nil {
		s.stack.Close() // waits for the guests' connections to the world
	}
	s.services.Wait()
	s.flows.wait()
	s.capture.Close()
	s.events.close()
	return nil
}
