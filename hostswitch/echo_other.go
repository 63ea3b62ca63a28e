// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin

package hostswitch

import (
	"context"
	"errors"
	"net/netip"
)

// echoSupported: Windows has no datagram socket for ICMP; its raw one is for
// administrators.
const echoSupported = false

func dialEcho(context.Context, netip.Addr) (flowConn, error) { return nil, errors.ErrUnsupported }
