// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func openFiles(t testing.TB) int {
	t.Helper()
	x, y, err := socketpair() // the poller opens descriptors of its own for the first socket
	require.NoError(t, err)
	_, _ = x.Close(), y.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// TestPipeNoticesDeathAfterHalfClose: a peer sends EOF and then dies, and nobody writes
// to it. From either side, and whether or not the other one is a socket.
func TestPipeNoticesDeathAfterHalfClose(t *testing.T) {
	for _, left := range []string{"unix", "tcp"} {
		for _, right := range []string{"unix", "tcp", "memory", "tls"} {
			for _, turned := range []bool{false, true} {
				j := join(t, left, right)
				dies, stays := j.client, j.server
				if turned {
					j = join(t, right, left)
					dies, stays = j.server, j.client
				}
				require.NoError(t, dies.CloseWrite())
				_, err := stays.Read(make([]byte, 1))
				require.ErrorIs(t, err, io.EOF)
				_, err = stays.Write([]byte("x")) // the way back is open
				require.NoError(t, err)
				_, err = io.ReadFull(dies, make([]byte, 1))
				require.NoError(t, err)
				kill(t, dies)
				r := j.result(t)
				if left == "tcp" {
					require.ErrorIs(t, r.err, syscall.ECONNRESET)
				} else {
					require.NoError(t, r.err, "%s %s: nothing was lost", left, right)
				}
			}
		}
	}
}

// kill closes c as the death of its process may: TCP resets.
func kill(t testing.TB, c socketbridge.HalfCloser) {
	t.Helper()
	if c, ok := c.(*net.TCPConn); ok {
		require.NoError(t, c.SetLinger(0))
	}
	require.NoError(t, c.Close())
}

// TestPipeNoticesDeathWhileBlocked: nobody reads what the dead peer had sent.
func TestPipeNoticesDeathWhileBlocked(t *testing.T) {
	for _, right := range []string{"unix", "tcp"} {
		for _, halfClosed := range []bool{false, true} {
			j := join(t, "tcp", right)
			if halfClosed { // what comes back has ended
				require.NoError(t, j.server.CloseWrite())
				_, err := j.client.Read(make([]byte, 1))
				require.ErrorIs(t, err, io.EOF)
			}
			block(t, j.client)
			kill(t, j.client)
			require.ErrorIs(t, j.result(t).err, syscall.ECONNRESET)
		}
	}
}

// TestPipeDeliversWhatTheDeadHadSent: a unix peer writes, and closes before any of it is
// read on the other side; also when there was more for it than it had read.
func TestPipeDeliversWhatTheDeadHadSent(t *testing.T) {
	for _, right := range []string{"unix", "tcp"} {
		for _, unread := range []bool{false, true} {
			j := join(t, "unix", right)
			if unread {
				_, err := j.server.Write([]byte("xy"))
				require.NoError(t, err)
				_, err = j.client.Read(make([]byte, 1))
				require.NoError(t, err)
			}
			data := noise(256 << 10)
			_, err := j.client.Write(data)
			require.NoError(t, err)
			require.NoError(t, j.client.Close())
			got, err := io.ReadAll(j.server)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
			r := j.result(t)
			require.EqualValues(t, len(data), r.AToB)
			if unread {
				require.ErrorIs(t, r.err, syscall.ECONNRESET)
				require.ErrorContains(t, r.err, "socketbridge: pipe: read a: ")
			} else {
				require.NoError(t, r.err)
			}
		}
	}
}

// TestPipeTellsAWriterThatTheReaderIsGone, although that one had sent more than the
// writer reads: who writes before it reads would wait for ever.
func TestPipeTellsAWriterThatTheReaderIsGone(t *testing.T) {
	j := join(t, "unix", "unix")
	block(t, j.client)
	_, err := j.server.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, j.client.Close())
	for err == nil {
		_, err = j.server.Write(make([]byte, 64<<10))
	}
	require.ErrorIs(t, err, syscall.EPIPE)
	n, err := drained(j.server) // what was accepted is still there
	require.NoError(t, err)
	r := j.result(t)
	require.Equal(t, n+1, r.AToB)
	require.ErrorIs(t, r.err, syscall.EPIPE)
}

// TestPipeEndsWithTheReader: who streams to a peer that closed learns of it.
func TestPipeEndsWithTheReader(t *testing.T) {
	for _, right := range []string{"unix", "tcp"} {
		j := join(t, "unix", right)
		require.NoError(t, j.client.Close())
		buf := make([]byte, 32<<10)
		var err error
		for err == nil {
			_, err = j.server.Write(buf)
		}
		r := j.result(t)
		if r.err != nil { // else it had closed before the first byte came
			require.ErrorIs(t, r.err, syscall.EPIPE)
			require.ErrorContains(t, r.err, "socketbridge: pipe: write a: ")
		}
	}
}

// TestPipeLeavesNoDescriptor: 10,000 connections, 100 at a time, that end in each way
// there is (FAILURES 26). What is carried is enough for pipes to be used.
func TestPipeLeavesNoDescriptor(t *testing.T) {
	before := openFiles(t)
	data := noise(40 << 10)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 100 {
		workers.Go(func() {
			for i := next.Add(1); i <= 10_000; i = next.Add(1) {
				client, a, err := socketpair()
				if err != nil {
					t.Error(err)
					return
				}
				b, server, err := socketpair()
				if err != nil {
					t.Error(err)
					return
				}
				var pair sync.WaitGroup
				pair.Go(func() { _, _ = engine(t.Context(), a, b) })
				pair.Go(func() {
					_, _ = client.Write(data)
					if i%3 > 0 {
						_ = client.CloseWrite()
					}
					if i%3 > 1 {
						_, _ = drained(client)
					}
					_ = client.Close()
				})
				got, _ := drained(server)
				if got != int64(len(data)) {
					t.Errorf("connection %d: %d bytes of %d", i, got, len(data))
				}
				_ = server.Close()
				pair.Wait()
			}
		})
	}
	workers.Wait()
	require.Equal(t, before, openFiles(t))
}

func socketpair() (x, y *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		var bad error
		if conns[i], bad = net.FileConn(f); bad != nil {
			err = bad
		}
		_ = f.Close()
	}
	if err != nil {
		return nil, nil, err
	}
	return conns[0].(*net.UnixConn), conns[1].(*net.UnixConn), nil
}

// TestPipeMixesNoStreams: pipes that held bytes when they were cut give none of them
// to the next connection.
func TestPipeMixesNoStreams(t *testing.T) {
	before := openFiles(t)
	keep := join(t, "unix", "unix") // so that spare pipes stay
	exchange := func(fill byte) {
		var all sync.WaitGroup
		for range 10 {
			j := join(t, "unix", "unix")
			all.Go(func() {
				sent := send(j.client, bytes.Repeat([]byte{fill}, 1<<20))
				got, err := io.ReadAll(j.server)
				if err != nil || len(got) != 1<<20 || len(bytes.Trim(got, string([]byte{fill}))) > 0 {
					t.Errorf("stream %d: %d bytes, %v", fill, len(got), err)
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
				_, _ = j.client.Close(), j.server.Close()
				<-j.done
			})
		}
		all.Wait()
	}
	sent := send(keep.client, make([]byte, 1<<20))
	_, err := io.CopyN(io.Discard, keep.server, 1<<20)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	for round := range byte(3) {
		var cut []*joint
		for range 10 {
			j := join(t, "unix", "unix")
			send(j.client, bytes.Repeat([]byte{200 + round}, 4<<20))
			_, err := io.ReadFull(j.server, make([]byte, 300<<10)) // it has begun to flow, and stops
			require.NoError(t, err)
			cut = append(cut, j)
		}
		for _, j := range cut {
			j.cancel(nil)
			<-j.done
			_, _ = j.client.Close(), j.server.Close()
		}
		exchange(round)
	}
	require.NoError(t, keep.server.Close())
	require.NoError(t, keep.client.Close())
	<-keep.done
	require.Eventually(t, func() bool { return openFiles(t) == before }, generous, time.Millisecond)
}

// TestPipeWithoutDescriptors copies when no pipe can be made.
func TestPipeWithoutDescriptors(t *testing.T) {
	j := join(t, "unix", "tcp")
	var limit, none unix.Rlimit
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit))
	none = unix.Rlimit{Cur: 1, Max: limit.Max}
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &none, nil))
	defer func() { require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil)) }()
	_, err := unix.Dup(0)
	require.ErrorIs(t, err, unix.EMFILE)
	data := noise(1 << 20)
	sent := send(j.client, data)
	got, err := io.ReadAll(j.server)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.NoError(t, <-sent)
	require.NoError(t, j.server.Close())
	require.NoError(t, j.result(t).err)
}

// TestPipeGoesPastUrgentData: a splice stops at its mark, and says that there is nothing,
// or no more. In the midst of the stream, and at its end.
func TestPipeGoesPastUrgentData(t *testing.T) {
	const part = 300 << 10
	for _, right := range []string{"unix", "tcp"} {
		for _, ends := range []bool{false, true} {
			j := join(t, "tcp", right)
			go func() {
				_, _ = j.client.Write(noise(part))
				raw, err := j.client.(*net.TCPConn).SyscallConn()
				if err == nil {
					_ = raw.Control(func(fd uintptr) { _ = unix.Send(int(fd), []byte("!"), unix.MSG_OOB) })
				}
				_, _ = j.client.Write(noise(part))
				if ends {
					_ = j.client.CloseWrite()
				}
			}()
			got := make([]byte, 2*part)
			_, err := io.ReadFull(j.server, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(got[:part], noise(part)) && bytes.Equal(got[part:], noise(part)))
			if ends {
				_, err = j.server.Read(got)
				require.ErrorIs(t, err, io.EOF)
			}
		}
	}
}

// TestPipeRefusesMessages: a message that is longer than a buffer would be cut, and
// nobody would know. A Bridge tells it as it does a connection without CloseWrite.
func TestPipeRefusesMessages(t *testing.T) {
	for _, turned := range []bool{false, true} {
		_, packets := connect(t, "unixpacket", t.TempDir()+"/s")
		_, other := unixPair(t)
		a, b := packets, other
		if turned {
			a, b = b, a
		}
		require.ErrorContains(t, socketbridge.Pipe(a, b), "a socket of unixpacket carries messages, and a stream is needed")
		for _, c := range []socketbridge.HalfCloser{a, b} {
			_, err := c.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed)
		}
	}
	_, packets := connect(t, "unixpacket", t.TempDir()+"/s")
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: func(context.Context) (net.Conn, error) { return packets.(net.Conn), nil }}
	hear(t, serve(t, b).ln.connect(cid(2)), "")
	require.Equal(t, socketbridge.BridgeStats{Accepted: 1, FailedDials: 1}, b.Stats())
	_, err := packets.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
}
