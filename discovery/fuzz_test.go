// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// A tape is a connection whose peer sends what is on it, at most so many bytes
// in one read, and then EOF.
type tape struct {
	input  bytes.Reader
	chunk  int
	output bytes.Buffer
	before int // bytes of input that were read before the first write
}

func (c *tape) Read(b []byte) (int, error) { return c.input.Read(b[:min(len(b), c.chunk)]) }

func (c *tape) Write(b []byte) (int, error) {
	if c.output.Len() == 0 {
		c.before = int(c.input.Size()) - c.input.Len()
	}
	return c.output.Write(b)
}

func (*tape) Close() error                     { return nil }
func (*tape) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "tape"} }
func (*tape) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "tape"} }
func (*tape) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (*tape) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (*tape) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

func record(sent []byte, chunk byte) *tape {
	c := &tape{chunk: max(1, int(chunk))}
	c.input.Reset(sent)
	return c
}

// FuzzSignature: whatever a guest sends, READY follows the exact signature only,
// no more is read than the signature has, and the error is a bounded quotation.
func FuzzSignature(f *testing.F) {
	f.Add([]byte(signature), byte(255))
	f.Add([]byte(signature+"READY"), byte(1))
	f.Add([]byte(signature[:59]), byte(7))
	f.Add([]byte(discovery.RancherDesktop2.Signature), byte(64))
	f.Add([]byte{}, byte(0))
	f.Fuzz(func(t *testing.T, sent []byte, chunk byte) {
		conn := record(sent, chunk)
		peer := &vm{id: "p", dial: func(context.Context) (net.Conn, error) { return conn, nil }}
		err := discoverer(these()).SignalReady(t.Context(), peer)
		var mismatch *discovery.MismatchError
		switch {
		case strings.HasPrefix(string(sent), signature):
			require.NoError(t, err)
			require.Equal(t, "READY", conn.output.String())
			require.Equal(t, len(signature), conn.before)
		case strings.HasPrefix(signature, string(sent)):
			require.False(t, errors.As(err, &mismatch))
			require.True(t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), err.Error())
		default:
			require.ErrorAs(t, err, &mismatch)
			require.LessOrEqual(t, len(mismatch.Received), 64)
			require.True(t, strings.HasPrefix(string(sent), mismatch.Received))
		}
		if err != nil {
			require.Empty(t, conn.output.Bytes())
			require.Less(t, len(err.Error()), 64*4+100)
		}
	})
}

// FuzzReady: whatever a host sends, only READY is READY, also in pieces, and the
// guest says no more than its signature.
func FuzzReady(f *testing.F) {
	f.Add([]byte("READY"), byte(255))
	f.Add([]byte("READY\n"), byte(1))
	f.Add([]byte("REA"), byte(1))
	f.Add([]byte("HELLO"), byte(3))
	f.Fuzz(func(t *testing.T, sent []byte, chunk byte) {
		conn := record(sent, chunk)
		ln := &oneConn{conn: conn}
		r := &discovery.Responder{Protocol: protocol, Filter: anyone}
		err := r.WaitReady(t.Context(), ln)
		require.Equal(t, strings.HasPrefix(string(sent), "READY"), err == nil)
		require.Equal(t, signature, conn.output.String())
		require.Zero(t, conn.before)
		require.LessOrEqual(t, int(conn.input.Size())-conn.input.Len(), 5)
	})
}

// A oneConn is a listener that accepts one connection and breaks when that had
// its turn.
type oneConn struct {
	once sync.Once
	conn *tape
	done chan struct{}
}

func (l *oneConn) Accept() (conn net.Conn, err error) {
	err = net.ErrClosed
	l.once.Do(func() {
		l.done = make(chan struct{})
		conn, err = &turn{l.conn, sync.OnceFunc(func() { close(l.done) })}, nil
	})
	if err != nil {
		<-l.done
	}
	return conn, err
}

func (*oneConn) Close() error   { return nil }
func (*oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "tape"} }

type turn struct {
	*tape
	done func()
}

func (c *turn) Close() error { c.done(); return nil }
