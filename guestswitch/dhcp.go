// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"errors"
	"slices"
)

// DHCP is who configures the interface: one of [BuiltinDHCP], [ScriptDHCP],
// [ExecDHCP], [StaticDHCP] and [NoDHCP]. It holds no state of a run.
type DHCP interface{ configures() }

type (
	builtinDHCP struct{}
	scriptDHCP  struct{ path string }
	execDHCP    struct{ argv []string }
	staticDHCP  struct{ lease Lease }
	noDHCP      struct{}
)

func (builtinDHCP) configures() {}
func (scriptDHCP) configures()  {}
func (execDHCP) configures()    {}
func (staticDHCP) configures()  {}
func (noDHCP) configures()      {}

// BuiltinDHCP asks a DHCP server at the other end of the data connection, on
// the connection itself: no UDP socket is held, and answers to this client do
// not reach the tap. It asks, with back-off, until it has a lease (RFC 2131),
// and renews it. It sets the address, the MTU unless [Tap.MTU] does, a default
// route, and [Guest.ResolvConf]. Other addresses and routes stay; an existing
// default route of equal metric wins over that of the lease. At the end the
// lease is given back.
func BuiltinDHCP() DHCP { return builtinDHCP{} }

// ScriptDHCP is the client of [BuiltinDHCP], but the program at path configures
// the interface and is called as busybox's udhcpc does it: with one argument
// (deconfig, bound, renew, nak or leasefail), and in the environment, besides
// that of the process, interface, ip, mask (the length of the prefix), subnet,
// router, dns, domain, search, mtu, lease, serverid and so on, lists with
// spaces between; an option without a name is optN, in hexadecimal. It runs in
// [Tap.NetNS], in a process group of its own which is killed after ten seconds
// or when the script ends. As with udhcpc its exit code is not looked at, except
// for the log.
func ScriptDHCP(path string) DHCP { return scriptDHCP{path} }

// ExecDHCP runs a DHCP client that is installed, such as "udhcpc", "-f", "-i",
// "eth0", in [Tap.NetNS] and with the environment of the process. It has to stay
// in the foreground. When it exits with an error it is started again, with
// back-off; exit code 0 means that it is content ("udhcpc -q"). At the end its
// process group gets SIGTERM, after two seconds SIGKILL; until then frames are
// still carried, so that it can give its lease back.
func ExecDHCP(argv ...string) DHCP { return execDHCP{slices.Clone(argv)} }

// StaticDHCP configures the interface with what lease says: Addr, and if set
// Router, MTU (unless [Tap.MTU] says one), DNS, Domain and Search.
func StaticDHCP(lease Lease) DHCP { return staticDHCP{lease} }

// NoDHCP leaves the interface without an address.
func NoDHCP() DHCP { return noDHCP{} }

func checkDHCP(d DHCP) error {
	switch d := d.(type) {
	case scriptDHCP:
		if d.path == "" {
			return permanentError{errors.New("guestswitch: DHCP: ScriptDHCP needs the path of a script")}
		}
	case execDHCP:
		if len(d.argv) == 0 {
			return permanentError{errors.New("guestswitch: DHCP: ExecDHCP needs a command")}
		}
	case staticDHCP:
		if !d.lease.Addr.IsValid() {
			return permanentError{errors.New("guestswitch: DHCP: StaticDHCP needs Lease.Addr")}
		}
	}
	return nil
}
