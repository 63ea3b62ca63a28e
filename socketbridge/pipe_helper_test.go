// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// generous is a limit against hanging, not a measure.
const generous = 2 * time.Minute

// kinds are the kinds of connection that the tests join, each with each. far is what
// the test holds and near what Pipe gets.
var kinds = []struct {
	name string
	pair func(t testing.TB) (far, near socketbridge.HalfCloser)
}{
	{"unix", unixPair},
	{"tcp", tcpPair},
	{"memory", func(testing.TB) (far, near socketbridge.HalfCloser) {
		return asHalfClosers(memPair(text{"mem", "peer"}))
	}},
	{"buffered", func(t testing.TB) (far, near socketbridge.HalfCloser) {
		far, near = tcpPair(t)
		return far, &buffered{TCPConn: near.(*net.TCPConn), r: bufio.NewReader(near)}
	}},
	{"tls", tlsPair},
}

func asHalfClosers(a, b memConn) (far, near socketbridge.HalfCloser) { return a, b }

func kind(t testing.TB, name string) (far, near socketbridge.HalfCloser) {
	t.Helper()
	for _, k := range kinds {
		if k.name == name {
			return k.pair(t)
		}
	}
	t.Fatalf("no kind %q", name)
	return nil, nil
}

// A buffered connection has a descriptor, and holds bytes that were read from it.
type buffered struct {
	*net.TCPConn
	r *bufio.Reader
}

func (c *buffered) Read(b []byte) (int, error) { return c.r.Read(b) }

func unixPair(t testing.TB) (far, near socketbridge.HalfCloser) {
	t.Helper()
	return connect(t, "unix", filepath.Join(t.TempDir(), "s"))
}

func tcpPair(t testing.TB) (far, near socketbridge.HalfCloser) {
	t.Helper()
	return connect(t, "tcp", "127.0.0.1:0")
}

func connect(t testing.TB, network, address string) (far, near socketbridge.HalfCloser) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	if err != nil && network == "unix" {
		house.WineLacks(t, "unix sockets")
	}
	require.NoError(t, err)
	dialed, err := new(net.Dialer).DialContext(t.Context(), network, ln.Addr().String())
	require.NoError(t, err)
	accepted, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	t.Cleanup(func() { _, _ = dialed.Close(), accepted.Close() })
	return dialed.(socketbridge.HalfCloser), accepted.(socketbridge.HalfCloser)
}

// certificate is made once; it proves nothing, as no test asks whose it is.
var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

func tlsPair(t testing.TB) (far, near socketbridge.HalfCloser) {
	t.Helper()
	cert, err := certificate()
	require.NoError(t, err)
	below, above := tcpPair(t)
	client := tls.Client(below.(net.Conn), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nobody to verify
	server := tls.Server(above.(net.Conn), &tls.Config{Certificates: []tls.Certificate{cert}})
	shaken := make(chan error, 1)
	go func() { shaken <- client.HandshakeContext(t.Context()) }()
	require.NoError(t, server.HandshakeContext(t.Context()))
	require.NoError(t, <-shaken)
	return client, server
}

// engine is what the tests join connections with: PipeContext, and then what a Bridge has
// instead for sockets (TestLoopIsAPipe). paired are the kinds that are joined each with
// each.
var (
	engine = socketbridge.PipeContext
	paired = kinds
)

// A result is what PipeContext returned.
type result struct {
	socketbridge.Stats
	err error
}

// A joint is a pipe that runs, with what is beyond both its sides.
type joint struct {
	client, server socketbridge.HalfCloser // far from a and b
	a, b           socketbridge.HalfCloser
	cancel         context.CancelCauseFunc
	done           chan result
}

// join runs a pipe between two new connections, and ends it with the test.
func join(t testing.TB, left, right string) *joint {
	t.Helper()
	j := &joint{done: make(chan result, 1)}
	j.client, j.a = kind(t, left)
	j.server, j.b = kind(t, right)
	j.start(t)
	return j
}

func (j *joint) start(t testing.TB) {
	ctx, cancel := context.WithCancelCause(context.Background())
	j.cancel = cancel
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(nil); <-ended })
	go func() {
		defer close(ended)
		stats, err := engine(ctx, j.a, j.b)
		j.done <- result{stats, err}
	}()
}

// result waits for the pipe to end, and checks what holds of every end.
func (j *joint) result(t testing.TB) result {
	t.Helper()
	select {
	case r := <-j.done:
		for _, side := range []socketbridge.HalfCloser{j.a, j.b} {
			_, err := side.Write([]byte("x"))
			require.Error(t, err, "not closed")
		}
		return r
	case <-time.After(generous):
		require.FailNow(t, "the pipe goes on for ever")
		return result{}
	}
}

// send writes all of data and ends the stream, beside the caller. The channel is
// closed in the end.
func send(w socketbridge.HalfCloser, data []byte) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		_, err := w.Write(data)
		if err == nil {
			err = w.CloseWrite()
		}
		done <- err
	}()
	return done
}

// block writes until the pipe takes no more for a while, and returns how much it took.
func block(t testing.TB, w socketbridge.HalfCloser) (n int) {
	t.Helper()
	conn, buf := w.(net.Conn), make([]byte, 64<<10)
	for {
		require.NoError(t, conn.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
		m, err := conn.Write(buf)
		n += m
		if m == 0 {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			return n
		}
	}
}

// drained reads all that there is, and how it ends.
func drained(r io.Reader) (n int64, err error) { return io.Copy(io.Discard, struct{ io.Reader }{r}) }
