// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"net"
	"syscall"
)

func refuseDial(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
