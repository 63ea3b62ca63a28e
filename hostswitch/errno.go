// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import "errors"

// Codes of ICMP "destination unreachable" (RFC 792).
const (
	codeNetUnreachable  = 0
	codeHostUnreachable = 1
	codePortUnreachable = 3
)

// unreachableCode says how a guest is told of an error, if it means that there
// is no way to the destination just now.
func unreachableCode(err error) (code uint8, ok bool) {
	switch {
	case errors.Is(err, errNetUnreachable), errors.Is(err, errNetDown):
		return codeNetUnreachable, true
	// Without a network, macOS and Windows have no address to dial from.
	case errors.Is(err, errHostUnreachable), errors.Is(err, errHostDown), errors.Is(err, errNoAddr):
		return codeHostUnreachable, true
	default:
		return 0, false
	}
}

// noWay reports whether there is no way to the destination just now.
func noWay(err error) bool {
	_, ok := unreachableCode(err)
	return ok
}

// isTimeout reports whether nobody answered.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func isRefused(err error) bool { return errors.Is(err, errRefused) }
