// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const adapterTTL = 5 * time.Second

// A windowsHost is what Windows says about name servers and the search list.
type windowsHost struct {
	adapters                   []adapter
	policySearch, globalSearch string // separated by commas
	domain                     string // of the computer
}

// An adapter is a network interface of Windows, as far as names go.
type adapter struct {
	up, loopback     bool
	metric4, metric6 uint32 // the lower is preferred
	servers          []netip.Addr
	suffixes         []string
}

// adapterSource reads a host at most every adapterTTL: the system calls take
// milliseconds.
type adapterSource struct {
	read func() (windowsHost, error)

	mu    sync.Mutex
	until time.Time
	list  serverList
}

func (s *adapterSource) load() (serverList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.until) {
		return s.list, nil
	}
	host, err := s.read()
	if err != nil {
		return s.list, err // the last one known
	}
	s.list, s.until = host.serverList(), time.Now().Add(adapterTTL)
	return s.list, nil
}

// serverList orders servers by the metric of their adapter and family, as Windows
// prefers them: a VPN comes first. An adapter need not have a gateway, for a split
// tunnel has none. Left out are adapters that are down, the loopback adapter, and
// site-local servers (fec0::/10), which Windows puts where none is configured.
//
// The search list is that of the group policy, else that of all connections, else
// the computer's domain and the suffixes of the adapters, as Windows searches. It
// has no parents of the domain, which Windows only tries where told to ("devolution").
func (h windowsHost) serverList() serverList {
	type ranked struct {
		metric uint32
		addr   netip.Addr
		suffix []string
	}
	var all []ranked
	list := serverList{attempts: 2, timeout: 5 * time.Second}
	for _, a := range h.adapters {
		if !a.up || a.loopback {
			continue
		}
		all = append(all, ranked{metric: min(a.metric4, a.metric6), suffix: a.suffixes})
		for _, s := range a.servers {
			metric := a.metric4
			if s = s.Unmap(); s.Is6() {
				metric = a.metric6
			}
			if s.IsValid() && !s.IsUnspecified() && !s.IsMulticast() && !siteLocal.Contains(s.WithZone("")) {
				all = append(all, ranked{metric: metric, addr: s})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return cmp.Compare(a.metric, b.metric) })
	searches := [][]string{strings.Split(h.policySearch, ","), strings.Split(h.globalSearch, ","), {h.domain}}
	for _, r := range all {
		if r.addr.IsValid() {
			list.addServer(r.addr)
		}
		searches[2] = append(searches[2], r.suffix...)
	}
	for _, domains := range searches {
		for _, d := range domains {
			list.addSearch(strings.TrimSpace(d))
		}
		if len(list.search) > 0 {
			break
		}
	}
	return list
}

var siteLocal = netip.MustParsePrefix("fec0::/10") // RFC 3879
