// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"context"
)

// PipeOnLoop is PipeContext on a loop, as a Bridge has them.
func PipeOnLoop(ctx context.Context, a, b HalfCloser) (Stats, error) {
	var s loops
	defer s.stop()
	var stats Stats
	var err error
	done := make(chan struct{})
	if !s.join(a, b, 0, meter{}, func(theStats Stats, theErr error) {
		stats, err = theStats, theErr
		close(done)
	}) {
		return PipeContext(ctx, a, b)
	}
	defer context.AfterFunc(ctx, func() { s.cut(cancelled(ctx)) })()
	<-done
	return stats, err
}
