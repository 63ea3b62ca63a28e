// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"log/slog"
	"sync/atomic"
)

// BridgeStats is what a Bridge has done since it was made, over all its runs. The
// numbers are read one after another while the Bridge works.
type BridgeStats struct {
	Accepted    int64 `json:"accepted"`     // connections that the filter has let in
	Refused     int64 `json:"refused"`      // connections that it has not
	FailedDials int64 `json:"failed_dials"` // connections let in that got no target: it could not be dialled, or one end has no CloseWrite
	Active      int64 `json:"active"`       // connections let in that have not ended, without those that wait because of MaxConns
	Broken      int64 `json:"broken"`       // joined connections that an error ended: a reset, the idle timeout, a cut at shutdown
	ToTarget    int64 `json:"to_target"`    // bytes that targets have taken, of running connections too
	ToClient    int64 `json:"to_client"`    // bytes that clients have taken, of running connections too
}

// LogValue makes a group of the numbers.
func (s BridgeStats) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int64("accepted", s.Accepted),
		slog.Int64("refused", s.Refused),
		slog.Int64("failed_dials", s.FailedDials),
		slog.Int64("active", s.Active),
		slog.Int64("broken", s.Broken),
		slog.Int64("to_target", s.ToTarget),
		slog.Int64("to_client", s.ToClient),
	)
}

type counts struct {
	accepted, refused, failed, active, broken, toTarget, toClient atomic.Int64
}

// Stats returns the counters. It may be called at any time.
func (b *Bridge) Stats() BridgeStats {
	c := &b.counts
	return BridgeStats{
		Accepted: c.accepted.Load(), Refused: c.refused.Load(), FailedDials: c.failed.Load(),
		Active: c.active.Load(), Broken: c.broken.Load(),
		ToTarget: c.toTarget.Load(), ToClient: c.toClient.Load(),
	}
}
