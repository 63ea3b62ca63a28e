// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// streams is how many connections a script of FuzzInlet has: more than an Inlet
// keeps apart.
const streams = 10

// A script is what FuzzInlet's bytes say: four for each frame.
type script []byte

// Where in its stream a segment begins.
const (
	there  = 0   // where the one before ended
	beyond = 160 // there and some more
	before = 200 // that far back
	none   = 240 // there, without data
)

// What a segment is besides data.
const (
	plain = iota
	pushed
	finishes
	resets
	urgent
	begins
	acks
	opens
	stamped
	noOps
	service
	timeToLive
	partly
	wrongTCP
	wrongIP
	padded
	ipOptions
	inParts
	wrongInParts
	many
	another
	withoutACK
	flushes
	kinds
)

func (s script) add(conn, kind, where, length, param byte) script {
	return append(s, conn+streams*kind, where, length, param)
}

// A stream is one sender's state of mind.
type stream struct {
	at, end  int
	finished bool // and nothing is beyond end: where it would go, two stacks may disagree
	seg      seg  // what goes into each segment from now on
}

// bad is what stands in segments that nobody must take. In all others a byte says
// where it is: which of two that differ counts is for no stack to say.
const bad = 0xbb

// next turns four bytes into a segment.
func (s *stream) next(kind byte, b []byte, mark byte) (out seg) {
	where, n, param := int(b[0]), 1+int(b[1])*4, int(b[2])
	alone := seg{window: s.seg.window, ack: s.seg.ack, stamp: s.seg.stamp}
	switch kind {
	case acks:
		alone.ack = param * 7
	case opens:
		alone.window = uint16(param * 40)
	case stamped:
		alone.stamp = uint32(param)
	}
	s.seg = alone
	out = alone
	switch kind {
	case pushed:
		out.flags = psh
	case finishes:
		out.flags = fin
	case resets:
		out.flags = rst
	case urgent:
		out.flags, out.urgent = urg, uint16(param)
	case begins:
		out.flags = syn
	case noOps:
		out.options = []byte{1, 1, 1, byte(param & 1)}
	case service:
		out.tos = byte(param)
	case timeToLive:
		out.ttl = byte(param % 64)
	case partly:
		out.partial = true
	case wrongTCP:
		out.wrongTCP = true
	case wrongIP:
		out.wrongIP = true
	case padded:
		out.padding = 1 + param
	case ipOptions:
		out.ihl = 5 + byte(param%11)
	case inParts:
		out.inFragments = true
	case wrongInParts:
		out.inFragments, out.wrongTCP = true, true
	case many:
		out.super, n = true, n*3
	case another:
		out.toAnother = true
	case withoutACK:
		out.noACK = true
	}
	if out.flags&^psh != 0 && param%2 == 1 {
		out.window += 10_000 + uint16(mark) // to be told from what comes before and after
	}
	out.at = s.at
	switch {
	case where >= none:
		n = 0
	case where >= before:
		out.at = max(0, s.at-(where-before)*50)
	case where >= beyond:
		out.at += (where - beyond) * 25
	}
	switch {
	case s.finished:
		out.at = min(out.at, s.end)
		n = min(n, s.end-out.at)
	case kind == finishes:
		// Without data: gVisor loses the FIN of what has waited for its turn when that
		// comes once more in one piece, and the sender has to say it again.
		out.at, n, s.finished = s.end, 0, true
	}
	out.data = make([]byte, n)
	for i := range out.data {
		out.data[i] = byte((out.at + i) % bad)
		if out.wrongTCP || out.wrongIP || out.toAnother {
			out.data[i] = bad
		}
	}
	if where < beyond {
		s.at = out.at + n
	}
	s.end = max(s.end, out.at+n)
	return out
}

// FuzzInlet: what a stack's connections make of frames that come through an Inlet
// is what they make of them one by one.
func FuzzInlet(f *testing.F) {
	var every, run, mixed script
	for kind := range byte(kinds) {
		every = every.add(0, plain, there, 100, 0).add(0, plain, there, 100, 0).add(0, kind, there, 100, 77)
		if kind != resets && kind != finishes {
			mixed = mixed.add(kind%streams, kind, none, 0, 3).add(kind%streams, plain, there, 50, 1)
		}
		f.Add([]byte(script{}.add(0, plain, there, 100, 0).add(0, kind, there, 100, 9).add(0, plain, there, 100, 0)))
		f.Add([]byte(script{}.add(1, plain, there, 100, 0).add(1, kind, none, 0, 9).add(1, plain, before+2, 200, 0)))
		f.Add([]byte(script{}.add(1, plain, beyond+2, 100, 0).add(1, kind, there, 200, 9).add(1, plain, there, 60, 0)))
	}
	for i := range byte(60) {
		run = run.add(i%streams, plain, there, 30, 0)
	}
	f.Add([]byte(every))
	f.Add([]byte(run))
	f.Add([]byte(mixed))
	single, inlet := bothWays(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 64 // of frames: less than any buffer between here and the reader
		var results [2][]outcome
		for i, w := range []*way{single, inlet} {
			var ends [streams]*end
			var state [streams]stream
			for at := 0; at+4 <= min(len(b), 4*most); at += 4 {
				kind, c := b[at]/streams%kinds, b[at]%streams
				if kind == flushes {
					w.flush()
					continue
				}
				if ends[c] == nil {
					ends[c] = w.open(t, c%2 == 1)
					state[c].seg.window = 4000
				}
				if s := state[c].next(kind, b[at+1:at+4], byte(at/4)); s.at < 30_000 {
					ends[c].send(s)
				}
			}
			w.flush()
			for c, e := range ends {
				if e != nil {
					results[i] = append(results[i], e.finish(t, min(state[c].end, 33_000)))
				}
			}
		}
		require.Equal(t, results[0], results[1])
		for _, o := range results[0] {
			require.NotContains(t, o.read, string([]byte{bad}))
		}
	})
}
