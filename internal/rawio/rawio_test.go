// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package rawio_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

// patience only bounds how long a broken test hangs.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcp returns both ends of a TCP connection.
func tcp(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	a, b := join(t, ln)
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// join returns both ends of a connection through a listener, which it closes.
func join(t testing.TB, ln net.Listener) (near, far net.Conn) {
	t.Helper()
	defer func() { _ = ln.Close() }()
	near, err := new(net.Dialer).DialContext(t.Context(), ln.Addr().Network(), ln.Addr().String())
	require.NoError(t, err)
	far, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

// A wrapper is what tells the peer's name first, or has read ahead: it may look like
// the connection within, and is not.
type wrapper struct {
	*net.TCPConn
	ahead []byte
}

func (w *wrapper) Read(b []byte) (int, error) {
	if len(w.ahead) > 0 {
		n := copy(b, w.ahead)
		w.ahead = w.ahead[n:]
		return n, nil
	}
	return w.TCPConn.Read(b)
}

// What is not exactly of a kind that is known is used as it is, on every system.
func TestWhatIsNotKnownIsUsedAsItIs(t *testing.T) {
	conn, far := tcp(t)
	held := &wrapper{conn, []byte("ahead")}
	pipe, other := net.Pipe()
	defer func() { _ = pipe.Close(); _ = other.Close() }()
	file, err := os.Create(filepath.Join(t.TempDir(), "file")) // one that blocks
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	for name, v := range map[string]io.ReadWriter{
		"a connection with bytes of its own": held,
		"an embedded connection":             struct{ net.Conn }{conn},
		"a pipe in memory":                   pipe,
		"a buffer":                           new(bytes.Buffer),
		"a file that blocks":                 file,
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, io.Reader(v), rawio.NewReader(v))
			require.Equal(t, io.Writer(v), rawio.NewWriter(v))
		})
	}
	_, err = far.Write([]byte("behind"))
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	b := make([]byte, len("aheadbehind"))
	_, err = io.ReadFull(rawio.NewReader(held), b)
	require.NoError(t, err)
	require.Equal(t, "aheadbehind", string(b))
}

// What is there on every system.
func TestReaderAndWriterOfAConnection(t *testing.T) {
	near, far := tcp(t)
	require.NoError(t, near.SetDeadline(time.Now().Add(patience)))
	require.NoError(t, far.SetDeadline(time.Now().Add(patience)))
	w, r := rawio.NewWriter(near), rawio.NewReader(far)
	n, err := w.Write([]byte("hello"))
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.NoError(t, near.CloseWrite())
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b))
	require.NoError(t, far.Close())
	_, err = r.Read(b)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestWidenLeavesOthersAlone(t *testing.T) {
	near, far := net.Pipe()
	rawio.Widen(near)
	conn, _ := tcp(t)
	rawio.Widen(conn)
	require.NoError(t, errors.Join(near.Close(), far.Close()))
}
