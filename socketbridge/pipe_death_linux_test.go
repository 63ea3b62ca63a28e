// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPipeNoticesDeathBeforeItIsBlocked: the peer was dead before, which was told when
// there was more of what it had sent to read.
func TestPipeNoticesDeathBeforeItIsBlocked(t *testing.T) {
	for _, right := range []string{"unix", "tcp"} {
		j := &joint{done: make(chan result, 1)}
		j.client, j.a = tcpPair(t)
		j.server, j.b = kind(t, right)
		block(t, j.b)
		_, err := j.client.Write(noise(64 << 10))
		require.NoError(t, err)
		kill(t, j.client)
		j.start(t)
		require.ErrorIs(t, j.result(t).err, syscall.ECONNRESET)
	}
}

// TestPipeEndsThoughNobodyReadsWhatTheDeadHadSent, which a write found reset.
func TestPipeEndsThoughNobodyReadsWhatTheDeadHadSent(t *testing.T) {
	for _, left := range []string{"unix", "tcp"} {
		j := join(t, left, "tcp")
		block(t, j.server)
		kill(t, j.server)
		go func() {
			for err := error(nil); err == nil; {
				_, err = j.client.Write([]byte("x"))
			}
		}()
		require.ErrorIs(t, j.result(t).err, syscall.ECONNRESET)
	}
}

// TestPipeEndsWithAReaderThatStays: it reads no more, and then says that it is done, to
// who streams to it and does not look.
func TestPipeEndsWithAReaderThatStays(t *testing.T) {
	for _, right := range []string{"unix", "tcp"} {
		j := join(t, "unix", right)
		require.NoError(t, j.client.(*net.UnixConn).CloseRead())
		writing, thrown := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(writing)
			tell := sync.OnceFunc(func() { close(thrown) })
			defer tell() // a unix socket is told
			n := 0
			for err := error(nil); err == nil; n++ {
				if _, err = j.server.Write(make([]byte, 1<<20)); n == 64 { // more than anybody keeps
					tell()
				}
			}
		}()
		<-thrown
		_, err := j.client.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(j.server, make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, j.client.CloseWrite())
		require.ErrorIs(t, j.result(t).err, syscall.EPIPE)
		<-writing
	}
}
