// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command relay measures socketbridge side by side with what a user would put
// between two sockets instead: two loops of io.Copy, socat, systemd-socket-proxyd,
// and nothing at all, alternating in one run:
//
//	make bench-relay
//
// It needs Linux, socat and systemd; all traffic stays on this machine. Only
// ratios within one run mean something: it prints them, of the medians, and with
// -json the figures themselves.
package main
