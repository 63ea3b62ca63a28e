// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/rancher-sandbox/guestnet/internal/house/process"
)

// A route leads from a namespace to a listener in another.
type route struct {
	from, to     *namespace
	dial, listen string
}

// connect opens a connection, and returns both of its ends.
func (r route) connect(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln := r.to.listen(r.listen)
	defer func() { _ = ln.Close() }()
	require.NoError(t, ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience)))
	client = r.from.mustDial("tcp4", r.dial)
	require.NoError(t, client.SetDeadline(time.Time{}))
	server, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

// steady fails when nothing moves, however long the whole takes.
type steady struct{ net.Conn }

func (c steady) Read(b []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return c.Conn.Read(b)
}

func (c steady) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	return c.Conn.Write(b)
}

// A stream is one direction of a connection, and how much it carries.
type stream struct {
	from, to net.Conn
	bytes    int64
	half     func() // called when half of it has arrived; nil: not
}

// both are the two directions of a connection.
func both(client, server net.Conn, bytes int64) []stream {
	return []stream{{from: client, to: server, bytes: bytes}, {from: server, to: client, bytes: bytes}}
}

// carry has all streams carry noise at once, and compares the hashes of what was
// sent and of what has come to its end.
func carry(streams ...stream) error {
	var g errgroup.Group
	for i, s := range streams {
		sent, got := sha256.New(), sha256.New()
		var up errgroup.Group
		up.Go(func() error {
			err := pour(steady{s.from}, io.TeeReader(io.LimitReader(noise(i), s.bytes), sent))
			return errors.Join(err, s.from.(interface{ CloseWrite() error }).CloseWrite())
		})
		g.Go(func() error {
			err := pour(got, io.LimitReader(steady{s.to}, s.bytes/2))
			if s.half != nil {
				s.half()
			}
			err = errors.Join(err, pour(got, steady{s.to}), up.Wait())
			if err == nil && string(sent.Sum(nil)) != string(got.Sum(nil)) {
				err = errors.New("what has come is not what was sent")
			}
			if err != nil {
				err = fmt.Errorf("stream %d of %d, %v to %v: %w", i, len(streams), s.from.LocalAddr(), s.to.LocalAddr(), err)
			}
			return err
		})
	}
	return g.Wait()
}

// pour is io.Copy with large reads and writes, and nothing else.
func pour(dst io.Writer, src io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 256<<10))
	return err
}

// noise never repeats, and is another for each seed.
func noise(seed int) io.Reader {
	var key [16]byte
	binary.LittleEndian.PutUint64(key[:], uint64(seed))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has a length that keys have
	}
	return cipher.StreamReader{S: cipher.NewCTR(block, key[:]), R: zeros{}}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// carried is carry for a test, which says what it took.
func carried(t *testing.T, host *process.Process, streams ...stream) {
	t.Helper()
	var total int64
	for _, s := range streams {
		total += s.bytes
	}
	start, cpu := time.Now(), host.CPU()
	require.NoError(t, carry(streams...))
	took := time.Since(start)
	t.Logf("%d MiB, hashes equal, in %.1f s: %.2f Gbit/s; CPU of the host %.2f s, its memory at most %.0f MiB",
		total>>20, took.Seconds(), float64(total)*8/1e9/took.Seconds(), (host.CPU() - cpu).Seconds(), float64(host.PeakMemory())/(1<<20))
}
