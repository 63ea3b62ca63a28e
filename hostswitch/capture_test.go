// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A film is what a capture has written so far.
type film struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (f *film) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.b.Write(b)
}

// frames returns what is on it.
func (f *film) frames() (frames [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := pcapgo.NewNgReader(bytes.NewReader(f.b.Bytes()), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		return nil
	}
	for {
		b, _, err := r.ReadPacketData()
		if err != nil {
			return frames
		}
		frames = append(frames, b)
	}
}

// markers returns the texts of the marker frames on it, and how many other frames
// there are.
func (f *film) markers() (texts []string, others int) {
	for _, b := range f.frames() {
		if e, ok := packet.ParseEthernet(b); ok && isMarker(e) {
			texts = append(texts, string(e.Payload))
		} else {
			others++
		}
	}
	return texts, others
}

// FAILURES 34: a capture is switched on and off while frames flow; several may
// run, and none is there unless asked for.
func TestCapture(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g, other := attachRaw(t, sw, 2), attachRaw(t, sw, 3)
	require.Equal(t, gatewayMAC, other.resolve(t, gateway))
	seen := other.watch(isMarker)
	mark := func(text string) {
		g.send(g.marker(text))
		await(t, seen, text)
	}
	shoot := func(f *film) (cut func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- sw.Capture(ctx, f) }()
		eventually(t, func() bool { // running, as soon as it has a frame
			g.send(g.marker("run"))
			await(t, seen, "run")
			texts, _ := f.markers()
			return len(texts) > 0
		}, "the capture")
		return func() {
			cancel()
			require.NoError(t, await(t, done, "Capture"))
		}
	}
	var one, two film
	mark("before")
	cut1 := shoot(&one)
	mark("one")
	cut2 := shoot(&two)
	mark("both")
	require.Equal(t, gatewayMAC, g.resolve(t, gateway), "what the gateway says is on it too")
	cut1()
	mark("two")
	cut2()
	mark("after")

	story := func(f *film) (texts []string) {
		all, others := f.markers()
		require.GreaterOrEqual(t, others, 2, "question and answer")
		for _, s := range all {
			if s != "run" {
				texts = append(texts, s)
			}
		}
		return texts
	}
	require.Equal(t, []string{"one", "both"}, story(&one))
	require.Equal(t, []string{"both", "two"}, story(&two))
}

func TestCaptureEnds(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	errFull := errors.New("disk full")
	require.ErrorIs(t, sw.Capture(t.Context(), failingWriter{errFull}), errFull)

	var f film
	done := make(chan error, 1)
	go func() { done <- sw.Capture(context.Background(), &f) }()
	eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.b.Len() > 0
	}, "the header")
	require.NoError(t, sw.Close())
	require.ErrorIs(t, await(t, done, "Capture"), hostswitch.ErrClosed)
	require.ErrorIs(t, sw.Capture(t.Context(), io.Discard), hostswitch.ErrClosed)
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
