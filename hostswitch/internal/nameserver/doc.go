// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package nameserver is the DNS service on the gateway of a virtual network.
//
// [Server] answers the network's own zones itself and hands every other query,
// whatever its type, as a whole message to a [Resolver]. [System] is the
// Resolver that asks what the host would ask: its hosts file, its resolver,
// its servers. It follows them when they change.
//
// # What the server owns
//
//   - Names in a [Zone], in any case. They are answered with authority: an A
//     record with a TTL of 0 where a [Record] or the zone's DefaultIP matches,
//     NOERROR without answers for other types, NXDOMAIN for names that no
//     record has. The zone with the longest name wins, as in any name server,
//     not the first in the list.
//   - The zone itself: SOA and NS are made up as RFC 6303 does for empty zones;
//     an A record comes from a Record with neither Name nor Regexp, a Regexp
//     that matches "", or DefaultIP.
//   - A zone named "" or "." stands for all names that no other zone has, but
//     for addresses only: A is a record, DefaultIP or NXDOMAIN, AAAA is empty,
//     so that clients use the A record, and everything else goes to the
//     Resolver, as with gvisor-tap-vsock.
//   - Reverse names inside Config.Subnet: PTR is the first record with that
//     address, otherwise NXDOMAIN. They never leave the host.
//
// Queries for owned names in a class other than IN are refused. ANY gets the
// A record alone (RFC 8482).
//
// # What it refuses
//
// Guests are not trusted. AXFR and IXFR are REFUSED, opcodes other than QUERY
// get NOTIMP, messages without exactly one question FORMERR (RFC 9619), EDNS
// versions other than 0 BADVERS (RFC 6891). Responses and messages shorter
// than a header get nothing.
//
// # Limits
//
// A UDP answer is at most 512 bytes, or what the client's OPT record says up to
// 1232 (which fits any path unfragmented); what does not fit is cut at a record
// and marked TC, and the guest asks again over TCP. Queries beyond 4096 bytes
// are FORMERR, or the end of a TCP connection. Config bounds how many queries
// wait for the Resolver and how many TCP connections are open, of all guests and
// of each source address; zones are answered however many wait.
package nameserver
