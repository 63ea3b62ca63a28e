// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package socketbridge

import "time"

// On other systems the runtime's poller is the best there is.
type loops struct{}

func (*loops) join(HalfCloser, HalfCloser, time.Duration, meter, func(Stats, error)) bool {
	return false
}
func (*loops) cut(error) {}
func (*loops) stop()     {}
