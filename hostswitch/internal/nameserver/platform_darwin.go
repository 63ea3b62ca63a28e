// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import "net"

// platformSource reads the file that macOS writes for programs like this one. It
// has the primary resolver; those of single domains (scutil --dns) are libc's alone.
func platformSource() source { return &fileSource{path: "/etc/resolv.conf"} }

// platformLookup returns libc's resolver, which package net asks on macOS even
// without cgo.
func platformLookup() Lookup { return libcLookup(net.DefaultResolver) }
