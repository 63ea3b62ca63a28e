// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A Forward makes a port of a guest reachable on the host.
type Forward struct {
	Protocol string `json:"protocol"` // "tcp" or "udp", any case. Empty: tcp
	// Local is where the host listens, address and port: "127.0.0.1:8080". 0.0.0.0,
	// 127.0.0.1 and no address at all (":8080": every address, IPv6 too) are three
	// different forwards; port 0 is chosen by the host. "localhost" is 127.0.0.1, and
	// any other name is refused: no look-up decides where the host listens.
	Local string `json:"local"`
	// Remote is where connections go, address and port in the virtual network:
	// "192.168.127.2:80". Without an address, as in ":80": the guest that asks, or
	// Subnet.Guest if the host does.
	Remote string `json:"remote"`
}

// Reasons of a [ForwardError].
var (
	// ErrForwardExists says that the local address is taken, by another forward
	// or by another program.
	ErrForwardExists = errors.New("address already in use")
	// ErrForwardUnknown says that there is no such forward.
	ErrForwardUnknown = errors.New("no such forward")
	// ErrForwardDenied says that a guest may not do that.
	ErrForwardDenied = errors.New("not permitted")
	// ErrForwardInvalid says that the forward makes no sense as it is written.
	ErrForwardInvalid = errors.New("invalid forward")
)

// A ForwardError says which forward could not be exposed or unexposed, and why.
type ForwardError struct {
	Op              string // "expose" or "unexpose"
	Protocol, Local string // as written, where they make no sense
	Owner           string // who has the address, if it is taken
	Err             error  // Is one of the reasons, [ErrClosed], the error of a context, or the system's error
}

// Error implements error.
func (e *ForwardError) Error() string { return "hostswitch: " + e.text() }

func (e *ForwardError) text() string {
	s := fmt.Sprintf("%s %s %s: %v", e.Op, e.Protocol, e.Local, e.Err)
	if e.Owner != "" {
		s += " (by " + e.Owner + ")"
	}
	return s
}

// Unwrap returns the reason.
func (e *ForwardError) Unwrap() error { return e.Err }

// A configForwardError is one of New, which names the field, and the package once.
type configForwardError struct {
	i   int
	err *ForwardError
}

func (e configForwardError) Error() string {
	return fmt.Sprintf("hostswitch: Config.Forwards[%d]: %s", e.i, e.err.text())
}

func (e configForwardError) Unwrap() error { return e.err }

type forwardKey struct{ protocol, local string }

// A forward is an exposed Forward with its listener.
type forward struct {
	Forward
	remote netip.AddrPort
	asked  forwardKey // what the guest asked for, before AllowExpose
	owner  owner      // guarded by Switch.mu

	addr   netip.AddrPort // bound; tells UDP flows of this forward from others
	ln     net.Listener   // tcp
	pc     net.PacketConn // udp
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// An owner is who asked for a forward.
type owner struct {
	guest   netip.Addr // zero: the host
	mac     packet.MAC
	session uint64 // of the port through which the guest asked
}

func (o owner) String() string {
	if !o.guest.IsValid() {
		return "the host"
	}
	return "guest " + o.guest.String()
}

// Expose makes a port of a guest reachable on the host, and returns the forward
// with the address that was bound. ctx bounds the call, not the forward, which
// lives until [Switch.Unexpose] or Close and survives its guest's connection. An
// error is a [*ForwardError].
func (s *Switch) Expose(ctx context.Context, f Forward) (Forward, error) {
	return s.expose(ctx, f, forwardKey{}, owner{})
}

// Unexpose ends a forward: the port is free and its connections are closed when
// it returns. local is written as it was for Expose, or as Expose returned it. An
// error is a [*ForwardError].
func (s *Switch) Unexpose(protocol, local string) error {
	return s.unexpose(protocol, local, owner{})
}

// Forwards returns what is exposed, sorted by local address and protocol.
func (s *Switch) Forwards() []Forward {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Forward
	for _, f := range s.forwards {
		all = append(all, f.Forward)
	}
	slices.SortFunc(all, func(a, b Forward) int {
		return cmp.Or(cmp.Compare(a.Local, b.Local), cmp.Compare(a.Protocol, b.Protocol))
	})
	return all
}

// expose is Expose for a guest, too; first is what it asked for, if AllowExpose
// has made another of it.
func (s *Switch) expose(ctx context.Context, f Forward, first forwardKey, by owner) (Forward, error) {
	parsed, remote, err := s.parseForward(f, by)
	holder, fresh := "", false
	var fw *forward
	if err == nil {
		fw = &forward{Forward: parsed, remote: remote, asked: first, owner: by}
		fw, fresh, holder, err = s.addForward(ctx, fw)
	}
	if err != nil {
		if s.ctx.Err() != nil {
			err = ErrClosed
		}
		return Forward{}, &ForwardError{Op: "expose", Protocol: cmp.Or(parsed.Protocol, "tcp"), Local: parsed.Local, Owner: holder, Err: err}
	}
	if fresh {
		bound := fw.Forward
		s.events.emit(Event{Kind: Exposed, Peer: by.peer(), Forward: &bound})
		s.log.Info("exposed", "protocol", bound.Protocol, "local", bound.Local, "remote", bound.Remote, "by", by)
	}
	return fw.Forward, nil
}

// addForward binds a forward and serves it, or returns the one that its guest has
// already. If it cannot, holder says who has the address.
func (s *Switch) addForward(ctx context.Context, fw *forward) (_ *forward, fresh bool, holder string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, "", ErrClosed
	}
	by := fw.owner
	if old := s.forwards[fw.key()]; old != nil {
		if old.remote == fw.remote && s.sameGuestLocked(old.owner, by) {
			old.owner = by // what it wants, it has
			return old, false, "", nil
		}
		return nil, false, old.owner.String(), ErrForwardExists
	}
	if own, all := s.countLocked(by.guest); by.guest.IsValid() && (own >= maxGuestForwards || all >= 2*maxGuestForwards) {
		return nil, false, "", fmt.Errorf("%w: guests may have %d forwards each, and twice that together", ErrForwardDenied, maxGuestForwards)
	}
	if err := fw.bind(ctx); err != nil {
		if errors.Is(err, errAddrInUse) {
			return nil, false, s.holderLocked(fw), fmt.Errorf("%w: %w", ErrForwardExists, err)
		}
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: ports below 1024 take root, or on Linux a lower net.ipv4.ip_unprivileged_port_start", err)
		}
		return nil, false, "", err
	}
	s.forwards[fw.key()] = fw
	fctx, cancel := context.WithCancel(s.ctx)
	fw.cancel = cancel
	fw.done.Go(func() {
		if fw.ln != nil {
			s.serveTCPForward(fctx, fw)
		} else {
			s.serveUDPForward(fctx, fw)
		}
	})
	return fw, true, "", nil
}

func (f *forward) key() forwardKey { return forwardKey{f.Protocol, f.Local} }

func (o owner) peer() string {
	if !o.guest.IsValid() {
		return ""
	}
	return o.guest.String()
}

func (s *Switch) unexpose(proto, local string, by owner) error {
	asked := Forward{Protocol: cmp.Or(proto, "tcp"), Local: local}
	fail := func(err error, owner string) error {
		return &ForwardError{Op: "unexpose", Protocol: asked.Protocol, Local: local, Owner: owner, Err: err}
	}
	p, err := protocol(asked.Protocol)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrForwardInvalid, err), "")
	}
	asked.Protocol = p
	canonical, err := parseLocal(local)
	if err != nil {
		return fail(err, "")
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fail(ErrClosed, "")
	}
	key := forwardKey{p, canonical}
	fw := s.forwards[key]
	if fw == nil && by.guest.IsValid() {
		fw = s.askedLocked(key, by.guest)
	}
	switch {
	case fw == nil:
		s.mu.Unlock()
		return fail(ErrForwardUnknown, "")
	case by.guest.IsValid() && fw.owner.guest != by.guest:
		has := fw.owner.String()
		s.mu.Unlock()
		return fail(fmt.Errorf("%w: it is not this guest's", ErrForwardDenied), has)
	}
	delete(s.forwards, fw.key())
	s.services.Add(1) // Close waits for what is no longer in the table, too
	defer s.services.Done()
	s.mu.Unlock()
	fw.close()
	s.flows.closeWhere(func(k flowKey) bool { return k.forward && fw.pc != nil && k.dst == fw.addr })
	gone := fw.Forward
	s.events.emit(Event{Kind: Unexposed, Peer: by.peer(), Forward: &gone})
	s.log.Info("unexposed", "protocol", fw.Protocol, "local", fw.Local, "by", by)
	return nil
}

// askedLocked returns the forward that a guest asked for by that key, and that
// AllowExpose made another of.
func (s *Switch) askedLocked(key forwardKey, guest netip.Addr) *forward {
	for _, f := range s.forwards {
		if f.asked == key && f.owner.guest == guest {
			return f
		}
	}
	return nil
}

// parseForward brings a forward into the form in which it is kept.
func (s *Switch) parseForward(f Forward, by owner) (Forward, netip.AddrPort, error) {
	invalid := func(field string, err error) (Forward, netip.AddrPort, error) {
		return f, netip.AddrPort{}, fmt.Errorf("%w: %s: %w", ErrForwardInvalid, field, err)
	}
	p, err := protocol(cmp.Or(f.Protocol, "tcp"))
	if err != nil {
		return invalid("protocol", err)
	}
	f.Protocol = p
	local, err := parseLocal(f.Local)
	if err != nil {
		return f, netip.AddrPort{}, err
	}
	f.Local = local
	if host, port, err := net.SplitHostPort(f.Remote); err == nil && host == "" {
		asking := s.net.Subnet.Guest
		if by.guest.IsValid() {
			asking = by.guest
		}
		f.Remote = net.JoinHostPort(asking.String(), port)
	}
	remote, err := s.inside(f.Remote)
	if err != nil {
		return invalid("remote", err)
	}
	if by.guest.IsValid() && (s.own(remote.Addr()) || !s.net.host(remote.Addr())) {
		return invalid("remote", fmt.Errorf("%s is no guest's address", remote.Addr()))
	}
	return f, remote, nil
}

// parseLocal returns the one way in which a local address is written.
func parseLocal(local string) (string, error) {
	host, port, err := net.SplitHostPort(local)
	if err != nil {
		return "", fmt.Errorf(`%w: local: %q is not an address and a port, as in "127.0.0.1:8080"`, ErrForwardInvalid, local)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%w: local: port %q is not a number up to 65535", ErrForwardInvalid, port)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host != "" {
		a, err := netip.ParseAddr(host)
		if err != nil {
			return "", fmt.Errorf("%w: local: %q is not an IP address or localhost", ErrForwardInvalid, host)
		}
		host = a.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

// bind opens the host's socket; port 0 becomes the one that was bound.
func (f *forward) bind(ctx context.Context) error {
	var lc net.ListenConfig
	var bound net.Addr
	if f.Protocol == "tcp" {
		ln, err := lc.Listen(ctx, f.Protocol, f.Local)
		if err != nil {
			return err
		}
		f.ln, bound = ln, ln.Addr()
		f.addr = bound.(*net.TCPAddr).AddrPort() //nolint:forcetypeassert // what Listen("tcp") returns
	} else {
		pc, err := lc.ListenPacket(ctx, f.Protocol, f.Local)
		if err != nil {
			return err
		}
		f.pc, bound = pc, pc.LocalAddr()
		f.addr = bound.(*net.UDPAddr).AddrPort() //nolint:forcetypeassert // what ListenPacket("udp") returns
	}
	host, _, _ := net.SplitHostPort(f.Local)
	f.Local = net.JoinHostPort(host, strconv.Itoa(int(f.addr.Port())))
	return nil
}

// close frees the port, and waits for what serves it.
func (f *forward) close() {
	if f.cancel != nil {
		f.cancel()
	}
	if f.ln != nil {
		_ = f.ln.Close()
	} else {
		_ = f.pc.Close()
	}
	f.done.Wait()
}

// serveTCPForward takes connections to a forwarded port, until ctx ends, and
// ends those that are under way then.
func (s *Switch) serveTCPForward(ctx context.Context, f *forward) {
	err := acceptLoop(ctx, s.log, f.ln, always, func(host net.Conn) {
		if !s.relays.take(forwarded) {
			abort(host)
			return
		}
		f.done.Go(func() {
			defer s.relays.give(forwarded)
			dialCtx, cancel := context.WithTimeout(ctx, forwardDialTimeout)
			guest, err := s.stack.DialTCP(dialCtx, netip.AddrPortFrom(s.net.Subnet.Gateway, 0), f.remote)
			cancel()
			if err != nil {
				s.log.Debug("forwarded connection failed", "local", f.Local, "remote", f.Remote, "error", err)
				abort(host)
				return
			}
			s.relay(ctx, forwarded, guest, host)
		})
	})
	if ctx.Err() == nil {
		s.log.Error("forward ended", "protocol", f.Protocol, "local", f.Local, "error", err)
	}
}

// serveUDPForward takes datagrams to a forwarded port, until ctx ends.
func (s *Switch) serveUDPForward(ctx context.Context, f *forward) {
	buf := make([]byte, 64<<10)
	pause := minAcceptPause
	for {
		n, from, err := f.pc.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Debug("forward cannot read, trying again", "local", f.Local, "error", err, "in", pause)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, maxAcceptPause)
			continue
		}
		pause = minAcceptPause
		client, ok := from.(*net.UDPAddr)
		if !ok {
			continue
		}
		src := client.AddrPort()
		s.flows.send(flowKey{proto: packet.ProtoUDP, forward: true, src: src, dst: f.addr}, buf[:n], time.Now(), func() flowEnd {
			return &forwardFlow{s: s, f: f, client: client}
		})
	}
}

// forwardFlow is one client on the host talking to a guest through a forward.
type forwardFlow struct {
	s      *Switch
	f      *forward
	client net.Addr
}

func (f *forwardFlow) account() account { return account{to: f.f.remote.Addr()} }

func (f *forwardFlow) idle() time.Duration { return udpIdle }

func (f *forwardFlow) dial(context.Context) (flowConn, error) {
	return f.s.stack.DialUDP(netip.AddrPortFrom(f.s.net.Subnet.Gateway, 0), f.f.remote)
}

func (f *forwardFlow) reply(datagrams [][]byte) {
	for _, b := range datagrams {
		_, _ = f.f.pc.WriteTo(b, f.client)
	}
}

func (f *forwardFlow) failed(error) {} // the host's socket has no way to say so

// forwardsTo reports whether a forward goes to that guest.
func (s *Switch) forwardsTo(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.forwards {
		if f.remote.Addr() == a {
			return true
		}
	}
	return false
}

// holderLocked says who has the port that fw could not bind.
func (s *Switch) holderLocked(fw *forward) string {
	_, port, _ := net.SplitHostPort(fw.Local)
	for _, other := range s.forwards {
		if _, p, _ := net.SplitHostPort(other.Local); p == port && other.Protocol == fw.Protocol {
			return fmt.Sprintf("%s, as %s", other.owner, other.Local)
		}
	}
	return "another program on this host"
}

// sameGuestLocked reports whether by is the guest that was old, in a later
// session. An address that another machine has taken over meanwhile is not
// enough while the first is attached.
func (s *Switch) sameGuestLocked(old, by owner) bool {
	if !by.guest.IsValid() || old.guest != by.guest || old.session == by.session {
		return false
	}
	return old.mac == by.mac || (*s.ports.Load())[old.session] == nil
}

// countLocked counts the forwards of a guest, and of all guests.
func (s *Switch) countLocked(guest netip.Addr) (own, all int) {
	for _, f := range s.forwards {
		if f.owner.guest.IsValid() {
			all++
		}
		if f.owner.guest == guest {
			own++
		}
	}
	return own, all
}

var _ flowConn = (*netstack.PacketConn)(nil)
