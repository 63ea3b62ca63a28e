// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxServers    = 8
	maxSearch     = 32
	maxResolvConf = 1 << 20
	// A file changed again this soon after may have the same time and size.
	freshFile = 2 * time.Second
)

// A serverList is what the host says about its name servers.
type serverList struct {
	servers  []netip.Addr
	search   []string
	attempts int
	timeout  time.Duration // per attempt; 0: none but the query's
	rotate   bool
}

// A source knows the current serverList.
type source interface {
	load() (serverList, error)
}

// fileSource reads a file in the form of resolv.conf(5), again when it is
// another or has changed.
type fileSource struct {
	path string

	mu   sync.Mutex
	info os.FileInfo // nil: not to be trusted
	list serverList
}

func (s *fileSource) load() (serverList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.path)
	if err == nil && s.info != nil && os.SameFile(info, s.info) && info.Size() == s.info.Size() && info.ModTime().Equal(s.info.ModTime()) {
		return s.list, nil
	}
	s.info, s.list = nil, serverList{}
	if err != nil {
		return s.list, err
	}
	f, err := os.Open(s.path)
	if err != nil {
		return s.list, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return s.list, err
	}
	s.list = parseResolvConf(text)
	if time.Since(info.ModTime()) > freshFile {
		s.info = info
	}
	return s.list, nil
}

// parseResolvConf reads what resolv.conf(5) defines and a forwarder needs, and
// skips what it does not understand, as resolvers do. Unlike theirs, its list of
// servers may be empty: 127.0.0.1 is not assumed.
func parseResolvConf(text []byte) serverList {
	list := serverList{attempts: 2, timeout: 5 * time.Second}
	for line := range bytes.Lines(text) {
		if i := bytes.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				list.addServer(a)
			}
		case "search", "domain": // the last one counts
			list.search = nil
			for _, d := range fields[1:] {
				list.addSearch(d)
			}
		case "options":
			for _, o := range fields[1:] {
				list.option(o)
			}
		}
	}
	return list
}

func (l *serverList) addServer(a netip.Addr) {
	if a = a.Unmap(); len(l.servers) < maxServers && !slices.Contains(l.servers, a) {
		l.servers = append(l.servers, a)
	}
}

func (l *serverList) addSearch(domain string) {
	domain = strings.TrimSuffix(domain, ".")
	same := func(d string) bool { return strings.EqualFold(d, domain) }
	if domain != "" && len(l.search) < maxSearch && !slices.ContainsFunc(l.search, same) {
		l.search = append(l.search, domain)
	}
}

func (l *serverList) option(o string) {
	name, value, _ := strings.Cut(o, ":")
	n, err := strconv.Atoi(value)
	switch {
	case name == "rotate":
		l.rotate = true
	case err != nil || n < 1:
	case name == "timeout":
		l.timeout = time.Duration(min(n, 30)) * time.Second
	case name == "attempts":
		l.attempts = min(n, 5)
	}
}
