// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rancher-sandbox/guestnet/socketbridge"
	"github.com/stretchr/testify/require"
)

// TestDrain: FAILURES 12 and 8. A stream that ends by itself inside the bound is
// carried to its end, and the end is no error.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		target := make(memTarget, 1)
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial, Logger: slog.New(&log)}
		r := serve(t, b)
		client := r.ln.connect(cid(2))
		server := <-target
		say(t, client, "logs -f")
		hear(t, server, "logs -f")

		r.stop()
		<-r.ln.closed // at once: nobody waits in the backlog
		<-time.After(9 * time.Second)
		require.Empty(t, r.done)
		go say(t, server, "the last line")
		hear(t, client, "the last line")
		require.NoError(t, r.ended())
		require.Equal(t, socketbridge.BridgeStats{Accepted: 1, ToTarget: 7, ToClient: 13}, b.Stats())
		require.Empty(t, log.atLeast(slog.LevelInfo))
	})
}

// TestDrainHasABound: FAILURES 12. What does not end is cut, with all that belongs
// to it, after DrainTimeout and not before; a client that is told nothing sees its end.
func TestDrainHasABound(t *testing.T) {
	for bound, want := range map[time.Duration]time.Duration{
		0:                10 * time.Second,
		3 * time.Second:  3 * time.Second,
		time.Nanosecond:  time.Nanosecond,
		-1 * time.Second: 1000 * time.Hour, // none: until the client goes
	} {
		t.Run(bound.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log journal
				target := make(memTarget, 1)
				b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial, DrainTimeout: bound, Logger: slog.New(&log)}
				r := serve(t, b)
				client := r.ln.connect(cid(2))
				server := <-target
				synctest.Wait()

				told := time.Now()
				r.stop()
				if bound < 0 {
					time.AfterFunc(want, func() { _ = client.Close(); _ = server.Close() })
				}
				require.NoError(t, r.ended())
				require.Equal(t, want, time.Since(told))
				_, err := client.Read(make([]byte, 1))
				require.Error(t, err)
				_, err = server.Read(make([]byte, 1))
				require.Error(t, err)
				require.Zero(t, b.Stats().Active)
				require.Empty(t, log.atLeast(slog.LevelWarn))
			})
		})
	}
}

// TestDialAtShutdown: a dial under way may end within the drain, and is cut after it.
func TestDialAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		target, dial := make(memTarget, 1), make(chan struct{})
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), DialTimeout: -1, Logger: slog.New(&log),
			Dial: func(ctx context.Context) (net.Conn, error) {
				select {
				case <-dial:
					return target.Dial(ctx)
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}}
		r := serve(t, b)
		early, late := r.ln.connect(cid(2)), r.ln.connect(cid(2))
		synctest.Wait()
		r.stop()
		synctest.Wait()
		dial <- struct{}{}
		server := <-target
		require.NoError(t, server.Close())
		// Which of the two it was is not known; the other one is cut.
		told := time.Now()
		require.NoError(t, errors.Join(early.CloseWrite(), late.CloseWrite()))
		require.NoError(t, r.ended())
		require.Equal(t, 10*time.Second, time.Since(told))
		require.EqualValues(t, 1, b.Stats().FailedDials)
		require.Empty(t, log.atLeast(slog.LevelWarn))
	})
}

// TestDialTimeout: a dial that hangs ends, and one that does not even look at its
// context delays neither its client nor others.
func TestDialTimeout(t *testing.T) {
	for bound, want := range map[time.Duration]time.Duration{0: 10 * time.Second, time.Second: time.Second} {
		for name, deaf := range map[string]bool{"hangs": false, "is deaf": true} {
			t.Run(fmt.Sprint(name, want), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					listen := make(chan struct{})
					b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), DialTimeout: bound,
						Dial: func(ctx context.Context) (net.Conn, error) {
							if deaf {
								<-listen
								return nil, errors.New("at last")
							}
							<-ctx.Done()
							return nil, ctx.Err()
						}}
					r := serve(t, b)
					began := time.Now()
					hear(t, r.ln.connect(cid(2)), "")
					require.Equal(t, want, time.Since(began))
					synctest.Wait()
					r.stop()
					synctest.Wait()
					require.Equal(t, deaf, len(r.done) == 0, "Serve waits for Dial, and only for that")
					close(listen)
					require.NoError(t, r.ended())
					require.Equal(t, socketbridge.BridgeStats{Accepted: 1, FailedDials: 1}, b.Stats())
				})
			})
		}
	}
}

// filterFunc is a filter of a user's own.
type filterFunc func(net.Conn) error

func (f filterFunc) Allow(c net.Conn) error { return f(c) }

// TestMaxConnsKeepsNoHostOut: strangers are refused while all places are taken, however
// many they are. Of those who are let in some wait for their turn, as long as it takes,
// and the rest in the backlog.
func TestMaxConnsKeepsNoHostOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := make(memTarget, 1)
		b := &socketbridge.Bridge{Filter: socketbridge.AllowCID(2), Dial: target.Dial, MaxConns: 1}
		r := serve(t, b)
		first := r.ln.connect(cid(2))
		server := <-target
		for range 1000 {
			hear(t, r.ln.connect(cid(1)), "")
		}
		require.EqualValues(t, 1000, b.Stats().Refused)
		const more = 20
		var waiting [more]memConn
		for i := range waiting {
			waiting[i] = r.ln.connect(cid(2))
		}
		<-time.After(time.Hour)
		require.Empty(t, target)
		require.Len(t, r.ln.next, more-16, "in the backlog")
		require.EqualValues(t, 1, b.Stats().Active)
		require.NoError(t, first.Close())
		require.NoError(t, server.Close())
		var clients sync.WaitGroup
		for _, client := range waiting { // whose turn it is is not known
			clients.Go(func() {
				got, err := io.ReadAll(client)
				if err != nil || string(got) != "your turn" {
					t.Errorf("%q, %v", got, err)
				}
				_ = client.Close()
			})
		}
		for range more {
			server := <-target
			synctest.Wait()
			require.EqualValues(t, 1, b.Stats().Active)
			require.Empty(t, target)
			say(t, server, "your turn")
			require.NoError(t, server.Close())
		}
		clients.Wait()
		synctest.Wait()
		require.Equal(t, socketbridge.BridgeStats{Accepted: more + 1, Refused: 1000, ToClient: 9 * more}, b.Stats())
	})
}

// TestWaitForATurnIsCut when the drain is over, as the connection is that it waited for.
func TestWaitForATurnIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := make(memTarget, 1)
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial, MaxConns: 1}
		r := serve(t, b)
		r.ln.connect(cid(2))
		<-target
		waits := r.ln.connect(cid(2))
		synctest.Wait()
		told := time.Now()
		r.stop()
		hear(t, waits, "")
		require.NoError(t, r.ended())
		require.Equal(t, 10*time.Second, time.Since(told))
		require.Equal(t, socketbridge.BridgeStats{Accepted: 2, FailedDials: 1, Broken: 1}, b.Stats())
	})
}

// TestSlowFilters: one that waits delays no other peer, and one that reads from its
// peer does not read for ever.
func TestSlowFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := make(memTarget, 1)
		b := &socketbridge.Bridge{Dial: target.Dial, Filter: filterFunc(func(c net.Conn) error {
			if c.RemoteAddr().String() == "slow" {
				_, err := c.Read(make([]byte, 1))
				return err
			}
			return nil
		})}
		r := serve(t, b)
		began := time.Now()
		slow := r.ln.connect(text{"mem", "slow"})
		quick := r.ln.connect(text{"mem", "quick"})
		say(t, <-target, "served")
		hear(t, quick, "served")
		require.NoError(t, quick.Close())
		require.Zero(t, time.Since(began))
		hear(t, slow, "")
		require.Equal(t, 10*time.Second, time.Since(began))
		synctest.Wait()
		require.Equal(t, socketbridge.BridgeStats{Accepted: 1, Refused: 1, ToClient: 6}, b.Stats())
	})
}

// TestPipeTellsHowLongItTook.
func TestPipeTellsHowLongItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, a := memPair(cid(2))
		server, b := memPair(cid(2))
		time.AfterFunc(time.Hour, func() { _, _ = client.Close(), server.Close() })
		stats, err := socketbridge.PipeContext(t.Context(), a, b)
		require.NoError(t, err)
		require.Equal(t, time.Hour, stats.Duration)
	})
}

// TestIdleTimeout: what carries nothing is closed, what carries something is not.
func TestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := make(memTarget, 1)
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial, IdleTimeout: time.Minute}
		client := serve(t, b).ln.connect(cid(2))
		server := <-target
		for range 10 {
			<-time.After(59 * time.Second)
			go func() { _, _ = io.WriteString(server, "x") }()
			_, err := io.ReadFull(client, make([]byte, 1))
			require.NoError(t, err)
		}
		quiet := time.Now()
		_, err := io.ReadFull(client, make([]byte, 1))
		require.Error(t, err)
		require.GreaterOrEqual(t, time.Since(quiet), time.Minute)
		synctest.Wait()
		require.Equal(t, socketbridge.BridgeStats{Accepted: 1, Broken: 1, ToClient: 10}, b.Stats())
	})
}

// accept is an error of Accept as the net package returns it.
func acceptError(errno error) error {
	return &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", errno)}
}

// TestAcceptIsTriedAgain after errors that pass, with pauses that grow, and the log
// does not.
func TestAcceptIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		target := make(memTarget, 1)
		b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial, MaxConns: 2, Logger: slog.New(&log)}
		r := serve(t, b)
		began := time.Now()
		for range 20 {
			r.ln.next <- acceptError(passingErrno)
		}
		client := r.ln.connect(cid(2))
		say(t, <-target, "lives")
		hear(t, client, "lives")
		require.NoError(t, client.Close())
		// 5 ms, doubled 7 times, then 1 s for each of the other 12.
		require.Equal(t, 1275*time.Millisecond+12*time.Second, time.Since(began))
		lines := log.atLeast(slog.LevelWarn)
		require.Len(t, lines, 2)
		require.Contains(t, lines[0], "cannot accept, trying again")
		require.Contains(t, lines[0], passingErrno.Error())

		r.ln.next <- acceptError(syscall.EINTR)
		client = r.ln.connect(cid(2))
		began = time.Now()
		say(t, <-target, "again")
		hear(t, client, "again")
		require.NoError(t, client.Close())
		require.Equal(t, 5*time.Millisecond, time.Since(began), "a success resets the pause")
	})
}

// TestPauseEndsWithContext: also between two attempts.
func TestPauseEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serve(t, &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: make(memTarget).Dial})
		for range 20 {
			r.ln.next <- acceptError(passingErrno)
		}
		<-time.After(3 * time.Second)
		told := time.Now()
		r.stop()
		require.NoError(t, r.ended())
		require.Zero(t, time.Since(told))
	})
}

// TestOtherErrorsOfAcceptEndServe: once the connections have ended, or were cut.
func TestOtherErrorsOfAcceptEndServe(t *testing.T) {
	for _, why := range []error{errors.New("the listener is broken"), net.ErrClosed, io.EOF, syscall.EINVAL} {
		synctest.Test(t, func(t *testing.T) {
			target := make(memTarget, 2)
			b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial}
			r := &running{ln: newMemListener(), done: make(chan error, 1)}
			go func() { r.done <- b.Serve(t.Context(), r.ln) }()
			ends, stays := r.ln.connect(cid(2)), r.ln.connect(cid(2))
			_, _ = <-target, <-target
			r.ln.next <- acceptError(why)
			began := time.Now()
			<-r.ln.closed
			require.Empty(t, r.done)
			require.NoError(t, ends.Close())
			err := r.ended()
			require.ErrorIs(t, err, why)
			require.ErrorContains(t, err, "socketbridge: accept on ")
			require.False(t, isPermanent(err))
			require.Equal(t, 10*time.Second, time.Since(began))
			_, err = stays.Read(make([]byte, 1))
			require.Error(t, err)
		})
	}
}

// TestBrokenListenerIsTold at once and in the end, also if Serve is told to end meanwhile;
// and no DrainTimeout keeps it waiting for ever.
func TestBrokenListenerIsTold(t *testing.T) {
	for _, drain := range []time.Duration{-1, 0, time.Minute} {
		for _, told := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				var log journal
				why, target := errors.New("the listener is broken"), make(memTarget, 1)
				b := &socketbridge.Bridge{Filter: socketbridge.AllowAll(), Dial: target.Dial, DrainTimeout: drain, Logger: slog.New(&log)}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				r := &running{ln: newMemListener(), done: make(chan error, 1)}
				go func() { r.done <- b.Serve(ctx, r.ln) }()
				r.ln.connect(cid(2))
				<-target
				r.ln.next <- acceptError(why)
				began := time.Now()
				synctest.Wait()
				lines := log.atLeast(slog.LevelError)
				require.Len(t, lines, 1)
				require.Contains(t, lines[0], why.Error())
				require.Contains(t, lines[0], "active=1")
				if told {
					stop()
				}
				require.ErrorIs(t, r.ended(), why)
				require.Equal(t, max(drain, 10*time.Second), time.Since(began))
			})
		}
	}
}
