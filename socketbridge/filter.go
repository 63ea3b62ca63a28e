// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// A PeerFilter decides who is let in. Allow returns nil for a connection that is,
// and why not for another. It is called from many goroutines, before anything is
// read from the connection.
type PeerFilter interface{ Allow(c net.Conn) error }

// ErrRefused is what every [RefusedError] is.
var ErrRefused = errors.New("socketbridge: refused")

// A RefusedError is what the filters of this package return: who was refused, and
// why.
type RefusedError struct {
	Peer string // network and address, as far as they are known
	Err  error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("socketbridge: refused %s: %v", e.Peer, e.Err)
}

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }

// Is reports whether target is ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// filter is the PeerFilter that all the others are: check gives the reason alone,
// bad a mistake in how the filter was made, for which it refuses everyone.
type filter struct {
	check func(c net.Conn) error
	bad   error
	waits bool // it may wait for something
}

func (f filter) Allow(c net.Conn) error {
	err := f.bad
	switch {
	case err != nil:
	case c == nil:
		err = errors.New("there is no connection")
	default:
		err = f.check(c)
	}
	if err == nil {
		return nil
	}
	return &RefusedError{Peer: peerName(c), Err: err}
}

// mistake returns what is wrong with a filter of this package, so that a Bridge
// can tell at once what the filter would tell every peer.
func mistake(f PeerFilter) error {
	if f, ok := f.(filter); ok {
		return f.bad
	}
	return nil
}

// mayWait reports whether f is to be watched over while it decides.
func mayWait(f PeerFilter) bool {
	own, ok := f.(filter)
	return !ok || own.waits
}

// AllowAll lets everyone in. It is for where something else keeps strangers out,
// such as the permissions of a unix socket or a named pipe.
func AllowAll() PeerFilter { return filter{check: func(net.Conn) error { return nil }} }

// AnyOf lets in whom one of the filters does. It asks them in turn; a refusal holds
// all their reasons. AnyOf of no filter refuses everyone. A nil among them is a
// mistake: the filter refuses everyone, and [Bridge.Serve] does not start.
func AnyOf(f ...PeerFilter) PeerFilter {
	f = slices.Clone(f)
	var bad []error
	var waits bool
	for i, one := range f {
		waits = waits || mayWait(one)
		if one == nil {
			bad = append(bad, fmt.Errorf("filter %d of AnyOf is nil: leave it out, or say whom it lets in", i+1))
		} else if err := mistake(one); err != nil {
			bad = append(bad, err)
		}
	}
	return filter{bad: errors.Join(bad...), waits: waits, check: func(c net.Conn) error {
		why := errors.New("nobody is allowed: AnyOf has no filter")
		for i, one := range f {
			err := one.Allow(c)
			if err == nil {
				return nil
			}
			if refused, ok := errors.AsType[*RefusedError](err); ok {
				err = refused.Err // who it was is said once
			}
			if i == 0 {
				why = err
			} else {
				why = fmt.Errorf("%w; %w", why, err)
			}
		}
		return why
	}}
}

// AllowPrefix lets in TCP and UDP peers with an address in one of the prefixes. An
// IPv4 address is the same in its IPv6 form (::ffff:10.0.0.1); of a link-local
// address the zone does not count, so that fe80::/10 means every interface. It
// goes by RemoteAddr, which must be a *net.TCPAddr or a *net.UDPAddr.
//
// An invalid prefix is a mistake: the filter refuses everyone, and [Bridge.Serve]
// does not start.
func AllowPrefix(p ...netip.Prefix) PeerFilter {
	var bad []error
	prefixes := make([]netip.Prefix, 0, len(p))
	for _, one := range p {
		if one.Addr().Is4In6() && one.Bits() >= 96 {
			one = netip.PrefixFrom(one.Addr().Unmap(), one.Bits()-96)
		}
		if !one.IsValid() {
			bad = append(bad, errors.New("AllowPrefix was given an invalid prefix: make it with netip.ParsePrefix"))
		}
		prefixes = append(prefixes, one)
	}
	return filter{bad: errors.Join(bad...), check: func(c net.Conn) error {
		remote, err := remoteAddr(c)
		if err != nil {
			return err
		}
		var at netip.AddrPort
		switch addr := remote.(type) {
		case *net.TCPAddr:
			at = addr.AddrPort()
		case *net.UDPAddr:
			at = addr.AddrPort()
		default:
			return fmt.Errorf("a %T is no address of TCP or UDP", remote)
		}
		ip := at.Addr().Unmap().WithZone("")
		for _, one := range prefixes {
			if one.Contains(ip) {
				return nil
			}
		}
		return fmt.Errorf("its address is not in %v", prefixes)
	}}
}

// remoteAddr returns the address of the peer. Whatever is wrong with it is an
// error: there are connections whose address is nil, and some whose methods cannot
// be called any more once they are closed.
func remoteAddr(c net.Conn) (addr net.Addr, err error) {
	defer recovered(&err)
	if addr = c.RemoteAddr(); addr == nil {
		err = errors.New("it has no remote address")
	}
	return addr, err
}

// peerName describes the peer for logs and errors.
func peerName(c net.Conn) (name string) {
	name = "an unknown peer"
	defer func() { _ = recover() }() // a nil pointer in an interface
	if c == nil {
		return name
	}
	addr := c.RemoteAddr()
	if addr == nil {
		return name
	}
	name = fmt.Sprintf("a peer with a %T", addr) // should the next line not get to its end
	network, s := addr.Network(), addr.String()
	if s == "" || s == "@" { // unix peers have no name
		return "a peer on " + network
	}
	return network + " " + s
}

// recovered turns a panic of a connection's methods into an error: it is not the
// filter that is broken, and what cannot be asked is refused.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("it cannot be asked who it is: %v", r)
	}
}

// control runs ask on the descriptor of c. It reports whether c has one.
func control(c net.Conn, ask func(fd int) error) (has bool, err error) {
	defer recovered(&err)
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true, err
	}
	var answer error
	if err := raw.Control(func(fd uintptr) { answer = ask(int(fd)) }); err != nil {
		return true, err
	}
	return true, answer
}
