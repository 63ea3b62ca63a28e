// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"bytes"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// An actor is the peer on one side of a pipe. It follows a schedule, one byte per
// act, while it reads in pieces that the schedule has chosen too.
type actor struct {
	conn     socketbridge.HalfCloser
	schedule []byte
	seed     byte
	waits    bool // one side only: two might wait for each other

	sent, got []byte
	faults    bool // it resets, or closes before all was read
	readErr   error
}

// act writes what the schedule says: 0 to 199 is a write of a size, 200 to 249 a wait
// for something from the other, 250 to 254 half-closes, 255 resets. Every schedule ends with
// a half-close.
func (a *actor) act(heard <-chan struct{}) {
	source := rand.NewChaCha8([32]byte{a.seed})
	for _, op := range a.schedule {
		switch {
		case op < 200:
			buf := make([]byte, 1+int(op)*int(op)*int(op%8))
			_, _ = source.Read(buf)
			n, err := a.conn.Write(buf)
			a.sent = append(a.sent, buf[:n]...)
			if err != nil {
				return
			}
		case op < 250:
			if a.waits {
				<-heard
			}
		case op < 255:
			_ = a.conn.CloseWrite()
			return
		default:
			a.faults = true
			if c, ok := a.conn.(*net.TCPConn); ok {
				_ = c.SetLinger(0)
			}
			_ = a.conn.Close()
			return
		}
	}
	_ = a.conn.CloseWrite()
}

// listen reads to the end, and tells of what it hears as far as anyone waits.
func (a *actor) listen(heard chan<- struct{}) {
	defer close(heard)
	buf := make([]byte, 1+int(a.seed)<<9)
	for {
		n, err := a.conn.Read(buf)
		a.got = append(a.got, buf[:n]...)
		select {
		case heard <- struct{}{}:
		default:
		}
		if err != nil {
			a.readErr = err
			return
		}
	}
}

// play runs two schedules against each other through a pipe and checks what holds of
// all: each side gets the bytes of the other in their order, all of them if nobody
// broke the connection, and the pipe knows how many.
func play(t *testing.T, j *joint, schedules [2][]byte) {
	client := &actor{conn: j.client, schedule: schedules[0], seed: 1, waits: true}
	server := &actor{conn: j.server, schedule: schedules[1], seed: 200}
	done := make(chan struct{})
	for _, a := range []*actor{client, server} {
		heard := make(chan struct{}, 1)
		go func() { a.act(heard); done <- struct{}{} }()
		go func() { a.listen(heard); done <- struct{}{} }()
	}
	r := j.result(t)
	for range 4 {
		<-done
	}
	require.True(t, bytes.HasPrefix(client.sent, server.got), "the server got other bytes than the client sent")
	require.True(t, bytes.HasPrefix(server.sent, client.got), "the client got other bytes than the server sent")
	require.LessOrEqual(t, r.AToB, int64(len(client.sent)))
	require.LessOrEqual(t, r.BToA, int64(len(server.sent)))
	require.GreaterOrEqual(t, r.AToB, int64(len(server.got)))
	require.GreaterOrEqual(t, r.BToA, int64(len(client.got)))
	if client.faults || server.faults {
		return
	}
	require.NoError(t, r.err)
	require.Equal(t, len(client.sent), len(server.got))
	require.Equal(t, len(server.sent), len(client.got))
	require.EqualValues(t, len(client.sent), r.AToB)
	require.EqualValues(t, len(server.sent), r.BToA)
}

// TestPipeKeepsEveryByteInOrder plays schedules from seeds.
func TestPipeKeepsEveryByteInOrder(t *testing.T) {
	everyPairing(t, func(t *testing.T, left, right string) {
		playSeeds(t, func() *joint { return join(t, left, right) })
	})
}

func playSeeds(t *testing.T, join func() *joint) {
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 0))
		var schedules [2][]byte
		for i := range schedules {
			schedules[i] = make([]byte, random.IntN(12))
			for k := range schedules[i] {
				schedules[i][k] = byte(random.Uint32())
			}
		}
		t.Logf("seed %d: %v", seed, schedules)
		play(t, join(), schedules)
	}
}

// FuzzPipe plays any schedule, over any pairing.
func FuzzPipe(f *testing.F) {
	f.Add(byte(0), []byte{10, 250}, []byte{200, 20})
	f.Add(byte(1), []byte{199, 199, 255}, []byte{199, 255})
	f.Add(byte(5), []byte{255}, []byte{150, 150, 201})
	f.Add(byte(6), []byte{}, []byte{199, 199, 199})
	f.Fuzz(func(t *testing.T, pairing byte, client, server []byte) {
		n := len(kinds)
		left, right := int(pairing)%n, int(pairing)/n%n
		play(t, join(t, kinds[left].name, kinds[right].name), [2][]byte{client[:min(len(client), 16)], server[:min(len(server), 16)]})
	})
}
