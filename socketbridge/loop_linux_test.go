// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"context"
	"errors"
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
	use(t, socketbridge.PipeOnLoop)
	paired = kinds[:2] // the others are joined by Pipe there too
	t.Cleanup(func() { paired = kinds })
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

// use has the tests join connections with another engine.
func use(t *testing.T, other func(ctx context.Context, a, b socketbridge.HalfCloser) (socketbridge.Stats, error)) {
	engine = other
	t.Cleanup(func() { engine = socketbridge.PipeContext })
}

// oneLoop has a Bridge of this test use one loop.
func oneLoop(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// TestLoopCarriesABridge: its connections have no goroutines.
func TestLoopCarriesABridge(t *testing.T) {
	const pairs = 100
	ln := listenUnix(t, t.TempDir()+"/target.sock")
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(ln.Addr().String())}
	at, _ := bridge(t, b)
	before := runtime.NumGoroutine()
	for range pairs {
		client := dialUnix(t, at)
		server, err := ln.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { _ = server.Close() })
		exchange(t, client, server)
	}
	require.EqualValues(t, pairs, b.Stats().Active)
	require.Eventually(t, func() bool { return runtime.NumGoroutine() < before+pairs/2 }, limit, time.Millisecond)
}

// exchange has a byte go from one to the other.
func exchange(t *testing.T, from io.Writer, to io.Reader) {
	t.Helper()
	_, err := from.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(to, make([]byte, 1))
	require.NoError(t, err)
}

// TestLoopTakesTurns: a byte goes round for ever, as the two that are joined are the ends
// of one connection. Its source is never dry, and its destination never full.
func TestLoopTakesTurns(t *testing.T) {
	oneLoop(t)
	path, round := echo(t), make(chan net.Conn, 1)
	b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), DrainTimeout: time.Nanosecond,
		Dial: func(ctx context.Context) (net.Conn, error) {
			select {
			case conn := <-round:
				return conn, nil
			default:
				return socketbridge.DialUnix(path)(ctx)
			}
		}}
	x, y, err := socketpair()
	require.NoError(t, err)
	_, err = y.Write([]byte("x"))
	require.NoError(t, err)
	kept, err := x.File()
	require.NoError(t, err)
	r := serve(t, b)
	t.Cleanup(func() { // else a loop that has failed would go on
		raw, err := kept.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }))
		require.NoError(t, kept.Close())
	})
	round <- y
	r.ln.next <- x
	counted(t, b, func(s socketbridge.BridgeStats) bool { return s.ToTarget > 0 })
	far, near := unixPair(t)
	r.ln.next <- near
	require.NoError(t, far.(net.Conn).SetDeadline(time.Now().Add(limit)))
	for range 10 {
		exchange(t, far, far)
	}
	require.EqualValues(t, 2, b.Stats().Active)
	r.stop()
	require.NoError(t, r.ended())
	require.EqualValues(t, 2, b.Stats().Broken)
}

// TestLoopDelaysNobody: hundreds of connections on one loop, of which one is stalled and
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
	var conns [200]*net.UnixConn // more than there are events at a time
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
	require.EqualValues(t, len(conns)+2, b.Stats().Active)
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

	oneLoop(t) // and one that was about to be handed over
	var ends [4]socketbridge.HalfCloser
	for i := range ends {
		_, ends[i] = unixPair(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cause := errors.New("the test is over")
	require.Equal(t, cause, socketbridge.CutBeforeHand(ctx, ends[0], ends[1], ends[2], ends[3], cause))
}

// TestLoopAtTheEndOfServe: connections come and go while Serve is told to end and cuts.
// Those that came last stay until they are cut.
func TestLoopAtTheEndOfServe(t *testing.T) {
	path := echo(t)
	for i := range 50 {
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: socketbridge.DialUnix(path), DrainTimeout: time.Duration(1 + i*20_000)}
		at, stop := bridge(t, b)
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				var last [4]net.Conn
				for n := 0; ; n++ {
					conn, err := socketbridge.DialUnix(at)(t.Context())
					if err != nil {
						break
					}
					_, _ = io.WriteString(conn, "x")
					_, _ = conn.Read(make([]byte, 1))
					if old := last[n%len(last)]; old != nil {
						_ = old.Close()
					}
					last[n%len(last)] = conn
				}
				for _, conn := range last {
					if conn != nil {
						_, _ = drained(conn)
						_ = conn.Close()
					}
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
		exchange(t, young, young)
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
	exchange(t, silent, silent) // what follows is waited for
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
	use(t, socketbridge.PipeOnLoop)
	j.start(t)
	_, err := io.ReadFull(j.server, make([]byte, 3))
	require.NoError(t, err)
}

// TestLoopRefusesTheSameConnectionTwice, as Pipe does.
func TestLoopRefusesTheSameConnectionTwice(t *testing.T) {
	before := openFiles(t)
	far, same := tcpPair(t)
	_, err := socketbridge.PipeAsBridge(t.Context(), same, same)
	require.ErrorContains(t, err, "the same connection")
	require.NoError(t, far.Close())
	require.Equal(t, before, openFiles(t))
}
