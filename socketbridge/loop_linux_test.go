// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// TestLoopIsAPipe: whatever is true of Pipe is true of two sockets that a Bridge joins,
// which it does not do by Pipe.
func TestLoopIsAPipe(t *testing.T) {
	engine, paired = socketbridge.PipeOnLoop, kinds[:2] // the others are joined by Pipe there too
	t.Cleanup(func() { engine, paired = socketbridge.PipeContext, kinds })
	for name, test := range map[string]func(*testing.T){
		"NoticesDeathAfterHalfClose":      TestPipeNoticesDeathAfterHalfClose,
		"NoticesDeathWhileBlocked":        TestPipeNoticesDeathWhileBlocked,
		"EndsWithAReaderThatStays":        TestPipeEndsWithAReaderThatStays,
		"NoticesDeathBeforeItIsBlocked":   TestPipeNoticesDeathBeforeItIsBlocked,
		"EndsThoughNobodyReads":           TestPipeEndsThoughNobodyReadsWhatTheDeadHadSent,
		"DeliversWhatTheDeadHadSent":      TestPipeDeliversWhatTheDeadHadSent,
		"TellsAWriterThatTheReaderIsGone": TestPipeTellsAWriterThatTheReaderIsGone,
		"EndsWithTheReader":               TestPipeEndsWithTheReader,
		"LeavesNoDescriptor":              TestPipeLeavesNoDescriptor,
		"MixesNoStreams":                  TestPipeMixesNoStreams,
		"WithoutDescriptors":              TestPipeWithoutDescriptors,
		"GoesPastUrgentData":              TestPipeGoesPastUrgentData,
		"IsAsGoodAsAConnection":           TestPipeIsAsGoodAsAConnection,
		"KeepsEveryByteInOrder":           TestPipeKeepsEveryByteInOrder,
		"CarriesHalfClose":                TestPipeCarriesHalfClose,
		"CarriesBothWaysAtOnce":           TestPipeCarriesBothWaysAtOnce,
		"LargeStream":                     TestPipeLargeStream,
		"ClearsDeadlines":                 TestPipeClearsDeadlines,
		"EndsWithItsContext":              TestPipeEndsWithItsContext,
		"DeliversAnEarlyAnswer":           TestPipeDeliversAnEarlyAnswer,
		"CutStreamIsNoCompleteOne":        TestPipeCutStreamIsNoCompleteOne,
	} {
		t.Run(name, test)
	}
}

// oneLoop has a Bridge of this test use one loop.
func oneLoop(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// TestLoopDelaysNobody: a thousand connections on one loop, of which one is stalled and
// one never stops.
func TestLoopDelaysNobody(t *testing.T) {
	oneLoop(t)
	path := echo(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path)}
	at, stop := bridge(t, b)
	stalled, busy := dialUnix(t, at), dialUnix(t, at)
	block(t, stalled)
	var flood sync.WaitGroup
	flood.Go(func() {
		for err := error(nil); err == nil; {
			_, err = busy.Write(make([]byte, 64<<10))
		}
	})
	flood.Go(func() { _, _ = drained(busy) })
	var conns [1000]*net.UnixConn
	for i := range conns {
		conns[i] = dialUnix(t, at)
	}
	for range 3 {
		for i, conn := range conns {
			_, err := conn.Write([]byte{byte(i)})
			require.NoError(t, err)
		}
		for i, conn := range conns {
			got := make([]byte, 1)
			_, err := io.ReadFull(conn, got)
			require.NoError(t, err)
			require.Equal(t, byte(i), got[0])
		}
	}
	require.EqualValues(t, 1002, b.Stats().Active)
	for _, conn := range conns {
		ask(t, conn, "bye")
	}
	require.NoError(t, busy.Close())
	flood.Wait()
	require.NoError(t, stalled.Close())
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 0 })
	stop()
}

// TestLoopCutsEverything at once, whatever it is at, and tells TCP that it was cut.
func TestLoopCutsEverything(t *testing.T) {
	before := openFiles(t)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), DrainTimeout: time.Nanosecond,
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		}}
	at, stop := bridge(t, b)
	var clients, servers []net.Conn
	for i := range 9 {
		client := dialUnix(t, at)
		server, err := ln.Accept()
		require.NoError(t, err)
		clients, servers = append(clients, client), append(servers, server)
		switch i % 3 {
		case 1:
			block(t, client)
		case 2:
			require.NoError(t, client.CloseWrite())
			_, err := server.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			block(t, server.(*net.TCPConn))
		}
	}
	stop()
	require.EqualValues(t, 9, b.Stats().Broken)
	for i := range clients {
		_, err := drained(servers[i])
		if i%3 < 2 { // the others have had their EOF
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}
		_, _ = drained(clients[i])
		_, err = clients[i].Write([]byte("x"))
		require.Error(t, err)
		require.NoError(t, servers[i].Close())
		require.NoError(t, clients[i].Close())
	}
	require.NoError(t, ln.Close())
	require.Equal(t, before, openFiles(t))
}

// TestLoopTakesNobodyAfterTheCut: a target comes when all has been cut.
func TestLoopTakesNobodyAfterTheCut(t *testing.T) {
	far, near := unixPair(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), DialTimeout: -1, DrainTimeout: time.Nanosecond,
		Dial: func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return near.(net.Conn), nil
		}}
	at, stop := bridge(t, b)
	client := dialUnix(t, at)
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 1 })
	stop()
	hear(t, client, "")
	hear(t, far, "")
	require.Equal(t, socketbridge.BridgeStats{Accepted: 1, Broken: 1}, b.Stats())
}

// TestLoopAtTheEndOfServe: connections come and go while Serve is told to end and cuts.
func TestLoopAtTheEndOfServe(t *testing.T) {
	path := echo(t)
	for i := range 50 {
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path), DrainTimeout: time.Duration(1 + i*20_000)}
		at, stop := bridge(t, b)
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for {
					conn, err := socketbridge.DialUnix(at)(t.Context())
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, "x")
					_, _ = conn.Read(make([]byte, 1))
					_ = conn.Close()
				}
			})
		}
		counted(t, b, func(s socketbridge.BridgeStats) bool { return s.ToClient > 0 })
		stop()
		clients.Wait()
		require.Zero(t, b.Stats().Active)
	}
}

// TestLoopIsNotMisledByOldEvents: a socket goes on to have events after its connection
// has ended, because somebody else has it open too.
func TestLoopIsNotMisledByOldEvents(t *testing.T) {
	oneLoop(t)
	path := echo(t)
	var mu sync.Mutex
	var kept []*os.File
	b := &socketbridge.Bridge{Dial: socketbridge.DialUnix(path), Filter: filterFunc(func(c net.Conn) error {
		mu.Lock()
		defer mu.Unlock()
		f, err := c.(*net.UnixConn).File()
		kept = append(kept, f)
		return err
	})}
	at, stop := bridge(t, b)
	for range 20 {
		old := dialUnix(t, at)
		ended := b.Stats().ToClient
		require.NoError(t, old.CloseWrite()) // echoed
		_, err := old.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 0 && s.ToClient == ended })

		young := dialUnix(t, at) // has its slot
		_, err = io.WriteString(young, "x")
		require.NoError(t, err)
		_, err = io.ReadFull(young, make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, young.CloseWrite())
		require.NoError(t, old.Close()) // an event
		_, err = young.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, young.Close())
		counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 0 })
	}
	stop()
	require.Zero(t, b.Stats().Broken)
	for _, f := range kept {
		require.NoError(t, f.Close())
	}
}

// TestLoopDoesNotWaitForOneSocket that somebody has made to block.
func TestLoopDoesNotWaitForOneSocket(t *testing.T) {
	oneLoop(t)
	path := echo(t)
	b := &socketbridge.Bridge{Dial: socketbridge.DialUnix(path), Filter: filterFunc(func(c net.Conn) error {
		raw, err := c.(*net.UnixConn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { _ = unix.SetNonblock(int(fd), false) })
		}
		return err
	})}
	at, _ := bridge(t, b)
	silent := dialUnix(t, at)
	_, err := io.WriteString(silent, "x") // what follows it is waited for
	require.NoError(t, err)
	_, err = io.ReadFull(silent, make([]byte, 1))
	require.NoError(t, err)
	ask(t, dialUnix(t, at), "hello")
	require.NoError(t, silent.Close())
}

// TestLoopReadsOnPastDescriptors: a read stops where a peer has sent descriptors, though
// there is more.
func TestLoopReadsOnPastDescriptors(t *testing.T) {
	j := &joint{done: make(chan result, 1)}
	j.client, j.a = unixPair(t)
	j.server, j.b = unixPair(t)
	for range 3 {
		_, _, err := j.client.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(0), nil)
		require.NoError(t, err)
	}
	engine = socketbridge.PipeOnLoop
	t.Cleanup(func() { engine = socketbridge.PipeContext })
	j.start(t)
	_, err := io.ReadFull(j.server, make([]byte, 3))
	require.NoError(t, err)
}

// TestLoopRefusesTheSameConnectionTwice, as Pipe does.
func TestLoopRefusesTheSameConnectionTwice(t *testing.T) {
	before := openFiles(t)
	far, same := tcpPair(t)
	_, err := socketbridge.PipeOnLoop(t.Context(), same, same)
	require.ErrorContains(t, err, "the same connection")
	require.NoError(t, far.Close())
	require.Equal(t, before, openFiles(t))
}

// TestLoopNeedsDescriptors, and what has none to spare is joined as by Pipe.
func TestLoopNeedsDescriptors(t *testing.T) {
	for spare := range 4 {
		j := &joint{done: make(chan result, 1)}
		j.client, j.a = unixPair(t)
		j.server, j.b = tcpPair(t)
		before := openFiles(t)
		var limit unix.Rlimit
		require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit))
		next, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // whatever is free comes before it
		require.NoError(t, err)
		require.NoError(t, unix.Close(next))
		few := unix.Rlimit{Cur: uint64(next + spare), Max: limit.Max}
		require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &few, nil))
		restore := sync.OnceFunc(func() { _ = unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil) })
		t.Cleanup(restore)
		engine = socketbridge.PipeOnLoop
		t.Cleanup(func() { engine = socketbridge.PipeContext })
		j.start(t)
		sent := send(j.client, noise(100_000))
		got, err := io.ReadAll(j.server)
		restore()
		require.NoError(t, err)
		require.True(t, bytes.Equal(noise(100_000), got))
		require.NoError(t, <-sent)
		require.NoError(t, j.server.Close())
		require.NoError(t, j.result(t).err)
		require.Eventually(t, func() bool { return openFiles(t) == before-3 }, generous, time.Millisecond)
		require.NoError(t, j.client.Close())
	}
}

// TestLoopIdleTimeout: what carries something is not closed, and then it is.
func TestLoopIdleTimeout(t *testing.T) {
	const bound = 300 * time.Millisecond
	path := echo(t)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path), IdleTimeout: bound}
	at, _ := bridge(t, b)
	conn, other := dialUnix(t, at), dialUnix(t, at)
	var last time.Time
	var err error
	for began := time.Now(); err == nil && time.Since(began) < 2*bound; {
		last = time.Now()
		if _, err = conn.Write([]byte("x")); err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
	}
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	require.Error(t, err)
	require.GreaterOrEqual(t, time.Since(last), bound)
	_, err = other.Read(make([]byte, 1))
	require.Error(t, err)
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.Active == 0 })
	require.EqualValues(t, 2, b.Stats().Broken)
}
