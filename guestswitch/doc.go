// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package guestswitch is the guest's end of the data connection: it joins a tap
// interface to the virtual network that a host runs on the other side of a byte
// stream, and gives the interface its address.
//
// A [Guest] is configured by its fields and then run. [Guest.Run] creates the
// tap, dials the host, sets the interface up and carries Ethernet frames both
// ways, each with its length in front, until the context or the connection
// ends. Then it undoes what it did. A supervisor, or a loop, runs it again, as the
// program in examples/guestswitch does.
//
// # Handshake
//
// A host that looks for its VM, as package discovery does, is answered first if
// [Guest.Responder] is set: it is dialled when it has said READY. One run is one
// handshake and one connection, so a Guest comes back by being run again.
//
// # Offload
//
// The first frame on a connection offers the host a format in which one frame
// stands for up to 64 KiB of a TCP connection. A host that knows it accepts, and
// from there on the guest's kernel leaves segments and checksums to the other end:
// several times the rate, at the same MTU, for containers behind the guest too. A
// host that does not know it drops the offer, and everything is as without;
// [FramingPlain] does not make it. A new connection begins anew.
//
// # Address
//
// [Guest.DHCP] says who configures the interface. The default, [BuiltinDHCP],
// is a client inside the process: it talks over the data connection itself, so
// that it holds no UDP socket, and keeps its lease for as long as the run lasts.
// [ScriptDHCP] is the same client with a script that does the configuration,
// called as udhcpc calls one. [ExecDHCP] runs a client that is installed, and
// [StaticDHCP] asks nobody.
//
// # Namespaces
//
// The handshake's listener and the data connection are opened in the network
// namespace of the caller, since an AF_VSOCK socket belongs to the one where it
// was opened. The tap may live in another ([Tap.NetNS]), and scripts and clients
// run in there as well. The mount namespace stays that of the caller.
//
// # Ownership
//
// Run owns what it opens and starts: when it has returned, the interface with
// its addresses and routes, the resolv.conf, goroutines, descriptors and child
// processes are gone. A killed process leaves no interface either (it is not
// persistent), but it does leave lo up, the resolv.conf, and a client
// of ExecDHCP.
//
// # Limits
//
// A slow host backs up into the tap's own queue, where the kernel drops what
// does not fit. IPv6 is carried, and not configured. Only TCP over IPv4 is offloaded,
// and not inside a VLAN: an interface for one on top of the tap needs its own
// segmentation offload turned off (ethtool -K NAME tso off), or [FramingPlain].
//
// # Platforms
//
// Linux, with CAP_NET_ADMIN, and CAP_SYS_ADMIN where the tap lives in another
// namespace. Elsewhere Run returns an error that is [errors.ErrUnsupported].
package guestswitch
