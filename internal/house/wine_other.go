// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package house

// OnWine reports whether this Windows is wine.
func OnWine() bool { return false }
