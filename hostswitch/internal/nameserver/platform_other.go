// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows && !darwin

package nameserver

func platformSource() source { return &fileSource{path: "/etc/resolv.conf"} }

func platformLookup() Lookup { return hostsLookup }
