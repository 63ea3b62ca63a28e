// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"net"

	"github.com/miekg/dns"
)

func platformSource() source { return &fileSource{path: "/etc/resolv.conf"} }

// platformLookup returns libc's resolver, which package net asks on macOS even
// without cgo. It alone knows the servers of single domains (scutil --dns).
func platformLookup() (res *net.Resolver, types []uint16, hostsOnly bool) {
	return net.DefaultResolver, []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR}, false
}
