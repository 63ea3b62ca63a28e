// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"context"
	"errors"
)

var errNoLoop = errors.New("socketbridge: no loop takes two plain sockets: it is broken, or lacks descriptors (ulimit -n)")

// PipeOnLoop is PipeContext on a loop. It is an error if that takes not two sockets; what
// it need not take is joined as by PipeContext.
func PipeOnLoop(ctx context.Context, a, b HalfCloser) (Stats, error) {
	stats, ok, err := pipeOnLoop(ctx, a, b)
	if ok {
		return stats, err
	}
	rawA, _ := rawOf(a)
	rawB, _ := rawOf(b)
	if rawA != nil && rawB != nil {
		return Stats{}, errors.Join(errNoLoop, a.Close(), b.Close())
	}
	return PipeContext(ctx, a, b)
}

// PipeAsBridge is PipeContext on a loop, or if that does not take a and b, by itself.
func PipeAsBridge(ctx context.Context, a, b HalfCloser) (Stats, error) {
	if stats, ok, err := pipeOnLoop(ctx, a, b); ok {
		return stats, err
	}
	return PipeContext(ctx, a, b)
}

func pipeOnLoop(ctx context.Context, a, b HalfCloser) (stats Stats, ok bool, err error) {
	var s loops
	defer s.stop()
	done := make(chan struct{})
	if !s.join(a, b, 0, meter{}, func(theStats Stats, theErr error) {
		stats, err = theStats, theErr
		close(done)
	}) {
		return Stats{}, false, nil
	}
	defer context.AfterFunc(ctx, func() { s.cut(cancelled(ctx)) })()
	<-done
	return stats, true, err
}

// CutBeforeHand joins a with b, and cuts the one loop that there is, with cause, when it
// has been picked for c and d and does not have them yet. It returns what these end with.
func CutBeforeHand(ctx context.Context, a, b, c, d HalfCloser, cause error) error {
	var s loops
	defer s.stop()
	first, second := make(chan struct{}), make(chan error, 1)
	p := newPair(0, meter{}, func(_ Stats, err error) { second <- err })
	if !s.join(a, b, 0, meter{}, func(Stats, error) { close(first) }) || !p.a.adopt(c) || !p.b.adopt(d) {
		return errNoLoop
	}
	p.loop = s.pick()
	s.cut(cause)
	<-first // it has listened
	p.loop.hand(p)
	select {
	case err := <-second:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
