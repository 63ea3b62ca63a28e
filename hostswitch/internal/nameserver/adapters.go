// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const adapterTTL = 5 * time.Second

// An adapter is a network interface of Windows, as far as names go.
type adapter struct {
	up               bool
	metric4, metric6 uint32 // the lower is preferred
	servers          []netip.Addr
	suffixes         []string
}

// adapterSource derives servers from adapters, read at most every adapterTTL:
// the system call takes milliseconds.
type adapterSource struct {
	read func() ([]adapter, error)

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
	adapters, err := s.read()
	if err != nil {
		return s.list, err // the last one known
	}
	s.list, s.until = fromAdapters(adapters), time.Now().Add(adapterTTL)
	return s.list, nil
}

// fromAdapters orders servers by the metric of their adapter and family, as
// Windows prefers them: a VPN comes first. An adapter need not have a gateway,
// for a split tunnel has none. Left out are adapters that are down, and
// site-local servers (fec0::/10), which Windows puts where none is configured.
func fromAdapters(adapters []adapter) serverList {
	type ranked struct {
		metric uint32
		addr   netip.Addr
		suffix []string
	}
	var all []ranked
	list := serverList{attempts: 2, timeout: 5 * time.Second}
	for _, a := range adapters {
		if !a.up {
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
	for _, r := range all {
		if r.addr.IsValid() {
			list.addServer(r.addr)
		}
		for _, d := range r.suffix {
			list.addSearch(d)
		}
	}
	return list
}

var siteLocal = netip.MustParsePrefix("fec0::/10") // RFC 3879
