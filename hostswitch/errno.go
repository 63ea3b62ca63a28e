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
	case errors.Is(err, errNetUnreachable):
		return codeNetUnreachable, true
	case errors.Is(err, errHostUnreachable):
		return codeHostUnreachable, true
	default:
		return 0, false
	}
}

func isRefused(err error) bool { return errors.Is(err, errRefused) }
