// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package socketbridge

import (
	"net"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// vmOf needs Windows.
func vmOf(net.Addr) (guid.GUID, error) { return guid.GUID{}, unsupported("Hyper-V sockets") }
