// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package rawio

import (
	"io"
	"net"
)

// NewReader returns a reader of r for one goroutine at a time.
func NewReader(r io.Reader) io.Reader { return r }

// NewWriter returns a writer to w for one goroutine at a time.
func NewWriter(w io.Writer) io.Writer { return w }

// Widen asks for more room in a unix socket on its way out.
func Widen(net.Conn) {}
