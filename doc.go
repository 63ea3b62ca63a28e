// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package guestnet is the map of a house of small networking primitives for the
// link between a desktop host and its Linux guest VM. It holds no code.
//
// On the host:
//
//   - [github.com/rancher-sandbox/guestnet/hostswitch] is the virtual network:
//     DHCP, DNS, NAT and port forwards for guests whose Ethernet frames come over
//     a byte stream.
//   - [github.com/rancher-sandbox/guestnet/hostswitch/switchtest] is a guest
//     inside a test, as net/http/httptest is a server inside a test.
//   - [github.com/rancher-sandbox/guestnet/subnet] chooses and checks the
//     network's addresses.
//
// In the guest:
//
//   - [github.com/rancher-sandbox/guestnet/guestswitch] is the guest's end: a tap
//     device, its frames, and a DHCP client. It does not pull in gVisor.
//
// On both:
//
//   - [github.com/rancher-sandbox/guestnet/discovery] is how the two find each
//     other among all virtual machines.
//   - [github.com/rancher-sandbox/guestnet/socketbridge] joins a socket of one side
//     and a socket of the other, for whom it is meant.
//   - [github.com/rancher-sandbox/guestnet/lifecycle] starts, watches, restarts
//     and stops all that by name.
//
// The programs under examples/ are what users would build from these: read
// examples/quickstart first.
package guestnet
