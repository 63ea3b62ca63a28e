// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package hostswitch

// batches hands out the means to move many datagrams with one system call: none.
type batches struct{}

func newBatches() *batches { return nil }

func (*batches) conn(c flowConn) batchConn { return newSingles(c) }
