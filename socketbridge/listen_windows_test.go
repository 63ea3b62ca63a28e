// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/go-winio/pkg/guid"
	virtsock "github.com/linuxkit/virtsock/pkg/hvsock"
	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

const limit = time.Minute // against hanging only

// pipeName returns one that no other test has.
func pipeName(t *testing.T) string {
	return fmt.Sprintf(`\\.\pipe\guestnet-%d-%s`, os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
}

func listenPipe(t *testing.T, name string) net.Listener {
	t.Helper()
	ln, err := socketbridge.ListenPipe(name, socketbridge.PipeOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	house.ServePipe(t, ln)
	return ln
}

// A pipeConn is what both ends of a pipe are.
type pipeConn interface {
	net.Conn
	CloseWrite() error
}

func dialPipe(t *testing.T, name string) pipeConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn, err := winio.DialPipeContext(ctx, name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(pipeConn)
}

// TestPipeHalfClose: EOF and a late answer, both ways.
func TestPipeHalfClose(t *testing.T) {
	name := pipeName(t)
	ln := listenPipe(t, name)
	accepted := make(chan pipeConn, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			accepted <- conn.(pipeConn)
		}
	}()
	client := dialPipe(t, name)
	server := <-accepted
	t.Cleanup(func() { _ = server.Close() })
	long := strings.Repeat("x", 1<<20)
	for _, c := range []struct{ from, to pipeConn }{{client, server}, {server, client}} {
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(c.from, long)
			if err == nil {
				err = c.from.CloseWrite()
			}
			sent <- err
		}()
		got, err := io.ReadAll(c.to)
		require.NoError(t, err)
		require.Equal(t, long, string(got))
		require.NoError(t, <-sent)
	}
}

// TestPipeDeadlinesAndClose end what blocks.
func TestPipeDeadlinesAndClose(t *testing.T) {
	name := pipeName(t)
	ln := listenPipe(t, name)
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := ln.Accept()
		accepted <- conn
	}()
	client := dialPipe(t, name)
	server := <-accepted
	require.NoError(t, server.SetReadDeadline(time.Now().Add(time.Millisecond)))
	_, err := server.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, server.SetReadDeadline(time.Time{}))
	read := make(chan error, 1)
	go func() {
		_, err := server.Read(make([]byte, 1))
		read <- err
	}()
	require.NoError(t, server.Close())
	require.Error(t, <-read)
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)

	go func() {
		_, err := ln.Accept()
		read <- err
	}()
	require.NoError(t, ln.Close())
	require.ErrorIs(t, <-read, net.ErrClosed)
	require.NoError(t, ln.Close())
}

// TestPipeNameTaken: a typed error while it is, and free again after Close, as
// FAILURES 30 wants it of ports.
func TestPipeNameTaken(t *testing.T) {
	name := pipeName(t)
	for range 3 {
		ln := listenPipe(t, name)
		_, err := socketbridge.ListenPipe(strings.ToUpper(name), socketbridge.PipeOptions{})
		require.ErrorIs(t, err, socketbridge.ErrInUse)
		require.ErrorContains(t, err, "pipe "+name[:9])
		require.NoError(t, ln.Close())
	}
}

// TestPipeNameOfAnOpenConnection is taken until that is closed, and the error says so.
func TestPipeNameOfAnOpenConnection(t *testing.T) {
	name := pipeName(t)
	ln, err := socketbridge.ListenPipe(name, socketbridge.PipeOptions{})
	require.NoError(t, err)
	free := house.ServePipe(t, ln)
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := ln.Accept()
		accepted <- conn
	}()
	client := dialPipe(t, name)
	server := <-accepted
	free()
	require.NoError(t, ln.Close())
	_, err = socketbridge.ListenPipe(name, socketbridge.PipeOptions{})
	require.ErrorIs(t, err, socketbridge.ErrInUse)
	require.ErrorContains(t, err, "connections that are still open hold the name")
	require.NoError(t, server.Close())
	require.NoError(t, client.Close())
	require.NoError(t, listenPipe(t, name).Close())
}

// TestPipeNameOfAnotherProcess, which is this program again: it has the name until it ends.
func TestPipeNameOfAnotherProcess(t *testing.T) {
	const child = "GUESTNET_PIPE"
	if name := os.Getenv(child); name != "" {
		listenPipe(t, name)
		_, _ = io.WriteString(os.Stdout, "listening\n")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent says so, or has gone
		return
	}
	name := pipeName(t)
	other := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	other.Env = append(os.Environ(), child+"="+name)
	stdin, err := other.StdinPipe()
	require.NoError(t, err)
	stdout, err := other.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, other.Start())
	said, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "listening\n", said)
	_, err = socketbridge.ListenPipe(name, socketbridge.PipeOptions{})
	require.ErrorIs(t, err, socketbridge.ErrInUse)
	require.NoError(t, stdin.Close())
	_, _ = io.Copy(io.Discard, stdout)
	require.NoError(t, other.Wait())
	require.NoError(t, listenPipe(t, name).Close())
}

// TestPipeSecurityDescriptor: a broken one is an error, not an open pipe.
func TestPipeSecurityDescriptor(t *testing.T) {
	_, err := socketbridge.ListenPipe(pipeName(t), socketbridge.PipeOptions{SecurityDescriptor: "D:P(nonsense"})
	require.Error(t, err)
	require.NotErrorIs(t, err, socketbridge.ErrInUse)
	ln, err := socketbridge.ListenPipe(pipeName(t), socketbridge.PipeOptions{SecurityDescriptor: "D:P(A;;GA;;;SY)"})
	require.NoError(t, err)
	require.NoError(t, ln.Close())
}

// TestBridgeOfAPipe: FAILURES 25 and 27. Twenty clients at once, each with a request that
// ends and an answer that follows, between a named pipe and TCP.
func TestBridgeOfAPipe(t *testing.T) {
	tcp, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var servers sync.WaitGroup
	servers.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			servers.Go(func() {
				question, _ := io.ReadAll(conn)
				_, _ = conn.Write(question)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() { _ = tcp.Close(); servers.Wait() })

	name := pipeName(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", tcp.Addr().String())
	}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	ln := listenPipe(t, name)
	go func() { done <- b.Serve(ctx, ln) }()
	var clients sync.WaitGroup
	for i := range 20 {
		clients.Go(func() {
			for j := range 10 {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				conn, err := winio.DialPipeContext(ctx, name)
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				want := strings.Repeat(fmt.Sprintf("client %d, question %d;", i, j), 1000)
				_, err = io.WriteString(conn, want)
				if err == nil {
					err = conn.(pipeConn).CloseWrite()
				}
				got, readErr := io.ReadAll(conn)
				if err != nil || readErr != nil || string(got) != want {
					t.Errorf("client %d: %v, %v, %d of %d bytes", i, err, readErr, len(got), len(want))
				}
				_ = conn.Close()
			}
		})
	}
	clients.Wait()
	stop()
	require.NoError(t, <-done)
	require.EqualValues(t, 200, b.Stats().Accepted)
	require.Zero(t, b.Stats().FailedDials)
	require.NoError(t, listenPipe(t, name).Close(), "the name is free again")
}

// TestCutOfAPipeThatNobodyReads: CloseWrite waits until the client has read what came
// before; a cut does not.
func TestCutOfAPipeThatNobodyReads(t *testing.T) {
	tcp, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = tcp.Close() })
	name := pipeName(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), DrainTimeout: time.Nanosecond, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", tcp.Addr().String())
	}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	ln := listenPipe(t, name)
	go func() { done <- b.Serve(ctx, ln) }()
	client := dialPipe(t, name)
	server, err := tcp.Accept()
	require.NoError(t, err)
	_, err = io.WriteString(server, "an answer and its end")
	require.NoError(t, err)
	require.NoError(t, server.Close())
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.ToClient > 0 })
	stop()
	require.NoError(t, <-done)
	require.NoError(t, client.Close())
}

// TestPipeToAPeerThatHungUp: in all the words that Windows has for it, of sockets, of
// sockets that are asked about as files, and of named pipes. It is no fault of the pipe.
func TestPipeToAPeerThatHungUp(t *testing.T) {
	for _, errno := range []syscall.Errno{
		windows.WSAECONNRESET, windows.WSAECONNABORTED, windows.WSAESHUTDOWN, windows.WSAENOTCONN,
		windows.ERROR_NETNAME_DELETED, windows.ERROR_CONNECTION_ABORTED,
		windows.ERROR_BROKEN_PIPE, windows.ERROR_NO_DATA, windows.ERROR_PIPE_NOT_CONNECTED,
	} {
		_, a := memPair(text{"mem", "peer"})
		_, b := memPair(text{"mem", "peer"})
		left := 1
		read := func(p []byte) (int, error) {
			n := left
			if left = 0; n == 0 {
				return 0, io.EOF
			}
			return n, nil
		}
		eof := func([]byte) (int, error) { return 0, io.EOF }
		err := socketbridge.Pipe(faulty{a, read, nil}, faulty{b, eof, func([]byte) (int, error) { return 0, errno }})
		require.ErrorIs(t, err, syscall.EPIPE, "%d: a byte was lost, which is told", errno)
		require.NotErrorIs(t, err, errno)
	}
}

// TestAllowVMOnWindows: the addresses of both packages, exactly.
func TestAllowVMOnWindows(t *testing.T) {
	vm, err := guid.FromString(someVM)
	require.NoError(t, err)
	other, err := guid.FromString(otherVM)
	require.NoError(t, err)
	linuxkit, err := virtsock.GUIDFromString(someVM)
	require.NoError(t, err)
	stranger, err := virtsock.GUIDFromString(otherVM)
	require.NoError(t, err)
	f := socketbridge.AllowVM("{" + strings.ToUpper(someVM) + "}")
	require.ErrorContains(t, socketbridge.AllowVM("x").Allow(from{addr: &winio.HvsockAddr{}}), "not the GUID")
	for _, addr := range []net.Addr{&winio.HvsockAddr{VMID: vm}, virtsock.Addr{VMID: linuxkit}, &virtsock.Addr{VMID: linuxkit}} {
		require.NoError(t, f.Allow(from{addr: addr}))
	}
	for _, addr := range []net.Addr{
		&winio.HvsockAddr{VMID: other}, virtsock.Addr{VMID: stranger}, &winio.HvsockAddr{}, virtsock.Addr{},
		(*winio.HvsockAddr)(nil), (*virtsock.Addr)(nil), text{"hvsock", someVM + ":" + someVM},
	} {
		require.ErrorIs(t, f.Allow(from{addr: addr}), socketbridge.ErrRefused)
	}
}

// TestDialUnixOnWindows says what is missing.
func TestDialUnixOnWindows(t *testing.T) {
	_, err := socketbridge.DialUnix(`C:\nonexistent\docker.sock`)(t.Context())
	require.ErrorContains(t, err, "docker.sock")
}
