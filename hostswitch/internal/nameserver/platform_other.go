// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows && !darwin

package nameserver

import (
	"context"
	"errors"
	"net"

	"github.com/miekg/dns"
)

func platformSource() source { return &fileSource{path: "/etc/resolv.conf"} }

// platformLookup returns a resolver that reads the hosts file and nothing else:
// it has no network.
func platformLookup() (res *net.Resolver, types []uint16, hostsOnly bool) {
	noNetwork := func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("nameserver: hosts file only")
	}
	return &net.Resolver{PreferGo: true, Dial: noNetwork}, []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR}, true
}
