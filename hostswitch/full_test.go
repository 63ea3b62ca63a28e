// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/netstack"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// withStack gives an offloader a network stack, whose frames take comes before.
func (o *offloader) withStack(take func()) *offloader {
	st, err := netstack.New(netstack.Config{MTU: 1500, MAC: o.mac[:], Output: func(_ packet.MAC, h frame.Header, parts [][]byte) { o.out.PutOffload(h, parts...) }})
	require.NoError(o.t, err)
	require.NoError(o.t, st.AddAddress(netip.PrefixFrom(o.addr, network.Bits())))
	require.NoError(o.t, st.SetRoutes(network, gateway))
	o.Stack = st
	done := during(func() {
		for inlet := st.NewInlet(); ; inlet.Flush() {
			take()
			f, err := o.in.Next()
			if err != nil {
				return
			}
			inlet.Deliver(o.in.Header(), f)
		}
	})
	o.t.Cleanup(func() {
		st.Close()
		_ = o.conn.Close()
		<-done
	})
	return o
}

// pace makes a guest one that others send more to than it takes.
const pace = 500 * time.Microsecond

// Several downloads at once, faster than the guest takes them: what the host sends waits
// where it is. It is not dropped at the guest's queue, for TCP to send it again, which at
// its worst takes a whole timeout.
func TestManyDownloadsLoseNothingInTheQueue(t *testing.T) {
	var drops map[string]uint64
	for range 5 {
		var stood time.Duration
		if drops, stood = dropsOfManyDownloads(t); len(drops) == 0 || stood < patienceOfWrites {
			break
		}
		t.Logf("this machine stood still for %v: once more", stood)
	}
	require.Empty(t, drops)
}

// patienceOfWrites is how long what is sent waits for a guest that does not read.
const patienceOfWrites = time.Second

// dropsOfManyDownloads also reports for how long the guest did not read at most.
func dropsOfManyDownloads(t *testing.T) (drops map[string]uint64, stood time.Duration) {
	const downloads, size = 6, 8 << 20
	sw := newSwitch(t, hostswitch.Config{})
	var longest atomic.Int64
	last := time.Now()
	o := plugOffloader(t, sw, 2, hostswitch.Port{}).agree().withStack(func() {
		<-time.After(pace)
		longest.Store(max(longest.Load(), int64(time.Since(last))))
		last = time.Now()
	})
	server := hostTCP(t, func(c net.Conn) { _, _ = c.Write(make([]byte, size)) })
	var all sync.WaitGroup
	for range downloads {
		c := o.dial(t, server)
		require.NoError(t, c.SetDeadline(time.Now().Add(4*patience)))
		all.Go(func() {
			if n, err := io.Copy(io.Discard, c); err != nil || n != size {
				t.Errorf("%d bytes: %v", n, err)
			}
		})
	}
	all.Wait()
	return sw.Snapshot().Drops, time.Duration(longest.Load())
}

// Who sends to a guest that has stopped reading waits; nobody else does.
func TestAGuestThatStopsReadingHoldsUpNobodyElse(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, sw *hostswitch.Switch, o *offloader, c net.Conn){
		"and its connection ends": func(t *testing.T, _ *hostswitch.Switch, o *offloader, c net.Conn) {
			require.NoError(t, o.conn.Close())
			require.NoError(t, await(t, o.end, "Attach"))
			require.NoError(t, c.Close()) // TCP does not know of that
		},
		"and the switch is closed": func(t *testing.T, sw *hostswitch.Switch, _ *offloader, _ net.Conn) {
			await(t, during(func() { _ = sw.Close() }), "Close")
			require.Zero(t, sw.Snapshot().Connections)
		},
	} {
		t.Run(name, func(t *testing.T) {
			sw := newSwitch(t, hostswitch.Config{})
			var reading sync.Mutex // held: it does not
			o := plugOffloader(t, sw, 2, hostswitch.Port{}).agree().withStack(func() {
				reading.Lock()
				defer reading.Unlock()
				<-time.After(pace)
			})
			endless := hostTCP(t, func(c net.Conn) {
				for b := make([]byte, 1<<20); ; {
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			})
			var downloads sync.WaitGroup
			t.Cleanup(downloads.Wait)
			for range 4 {
				c := o.dial(t, endless)
				require.NoError(t, c.SetDeadline(time.Time{}))
				downloads.Go(func() { _, _ = io.Copy(io.Discard, c) })
			}
			t.Cleanup(o.Stack.Close)
			o.serve(t, 80, echo)
			c, err := sw.DialContext(withTimeout(t), "tcp", netip.AddrPortFrom(o.addr, 80).String())
			require.NoError(t, err)
			defer c.Close() //nolint:errcheck // the end
			much := make([]byte, 64<<10)
			for begun := time.Now(); ; {
				reading.Lock()
				require.NoError(t, c.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
				n, err := c.Write(much) // the connection itself has room for it
				if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				reading.Unlock()
				require.NoError(t, err)
				require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
				_, err = io.ReadFull(c, much)
				require.NoError(t, err)
				require.Less(t, time.Since(begun), patience, "it was never full")
			}
			defer reading.Unlock()

			require.NoError(t, c.SetWriteDeadline(time.Time{}))
			waiting := during(func() { _, _ = c.Write(make([]byte, 32<<20)) }) // more than the connection has room for
			const size = 16 << 20
			server := hostTCP(t, func(c net.Conn) { _, _ = c.Write(make([]byte, size)) })
			n, err := io.Copy(io.Discard, attach(t, sw, 3).dial(t, server))
			require.NoError(t, err)
			require.EqualValues(t, size, n)
			select {
			case <-waiting:
				require.Fail(t, "it did not wait")
			default:
			}
			end(t, sw, o, c)
			await(t, waiting, "Write")
		})
	}
}

// A released guest's tap has room for some hundred frames, and what it forwards for its
// containers is lost there where the window is larger: FAILURES 40.
func TestWindowIsLargeOnlyForWhoKnowsTheOffloadFormat(t *testing.T) {
	const small, reads = 2 << 20, 50
	for name, knows := range map[string]bool{"knows it": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			sw := newSwitch(t, hostswitch.Config{})
			o := plugOffloader(t, sw, 2, hostswitch.Port{})
			if knows {
				o.agree()
			}
			o.withStack(func() {})
			ln, err := sw.Listen("tcp", netip.AddrPortFrom(gateway, 4000).String())
			require.NoError(t, err)
			from := o.dial(t, netip.AddrPortFrom(gateway, 4000))
			to, err := ln.Accept()
			require.NoError(t, err)
			uploaded := during(func() {
				for b := make([]byte, 1<<20); ; {
					if _, err := from.Write(b); err != nil {
						return
					}
				}
			})
			require.NoError(t, to.SetDeadline(time.Now().Add(patience)))
			largest := 0 // of what came in while nobody read
			for i, b := 0, make([]byte, 16<<20); largest <= small && (knows || i < reads); i++ {
				<-time.After(20 * time.Millisecond)
				n, err := to.Read(b)
				require.NoError(t, err)
				largest = max(largest, n)
			}
			require.Equal(t, knows, largest > small, "%d bytes", largest)
			require.NoError(t, from.Close())
			require.NoError(t, to.Close())
			await(t, uploaded, "Write")
		})
	}
}
