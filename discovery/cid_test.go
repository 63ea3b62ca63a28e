// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// A fromCID is a connection of a guest.
type fromCID struct {
	net.Conn
	addr net.Addr
}

func (c fromCID) RemoteAddr() net.Addr { return c.addr }

// A kernel has one listener for each port.
type kernel struct {
	mu    sync.Mutex
	ports map[uint32]*door
	opens int
}

func newKernel() *kernel { return &kernel{ports: map[uint32]*door{}} }

func (k *kernel) open(port uint32) (net.Listener, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.ports[port]; d != nil && d.closes.Load() == 0 {
		return nil, errors.New("address already in use")
	}
	k.opens++
	k.ports[port] = newDoor()
	return k.ports[port], nil
}

// connect is a guest that dials the host; it returns the guest's end.
func (k *kernel) connect(port uint32, addr net.Addr) net.Conn {
	k.mu.Lock()
	d := k.ports[port]
	k.mu.Unlock()
	host, guest := net.Pipe()
	select {
	case d.conns <- fromCID{host, addr}:
		return guest
	case <-d.closed:
		_ = guest.Close()
		return nil
	}
}

func guestAddr(cid uint32) net.Addr { return &vsock.Addr{ContextID: cid, Port: 1024} }

func requireClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// TestPeersShareAPort: a connection goes to the peer that it comes from, and a
// stranger is closed.
func TestPeersShareAPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		k, s := newKernel(), &discovery.CIDSource{Logger: log.logger()}
		three, err := s.ListenAs(3, 6656, k.open)
		require.NoError(t, err)
		four, err := s.ListenAs(4, 6656, k.open)
		require.NoError(t, err)
		require.Equal(t, 1, k.opens)
		require.Equal(t, &vsock.Addr{ContextID: 0xffffffff, Port: 6656}, three.Addr())

		for _, cid := range []uint32{4, 3, 4} {
			guest := k.connect(6656, guestAddr(cid))
			defer shut(guest)
			conn, err := map[uint32]net.Listener{3: three, 4: four}[cid].Accept()
			require.NoError(t, err)
			require.Equal(t, guestAddr(cid), conn.RemoteAddr())
			require.NoError(t, conn.Close())
		}
		for _, stranger := range []net.Addr{guestAddr(5), guestAddr(1), guestAddr(2), &net.UnixAddr{Name: "x"}, nil} {
			requireClosed(t, k.connect(6656, stranger))
		}
		synctest.Wait()
		require.Len(t, log.lines("stranger"), 1, "one line in 10 s")

		_, err = s.ListenAs(3, 6656, k.open)
		require.ErrorContains(t, err, "CID 3", "a second listener of the same peer")
		require.NoError(t, three.Close())
		require.NoError(t, three.Close())
		_, err = three.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		requireClosed(t, k.connect(6656, guestAddr(3)))

		guest := k.connect(6656, guestAddr(4))
		require.NoError(t, four.Close())
		requireClosed(t, guest) // it was never accepted
		require.Nil(t, k.connect(6656, guestAddr(4)), "the vsock listener was left open")

		again, err := s.ListenAs(3, 6656, k.open)
		require.NoError(t, err)
		require.NoError(t, again.Close())
	})
}

// TestOnePeerCannotFillTheQueueOfAnother.
func TestOnePeerCannotFillTheQueueOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, s := newKernel(), &discovery.CIDSource{}
		three, err := s.ListenAs(3, 6656, k.open)
		require.NoError(t, err)
		defer shut(three)
		four, err := s.ListenAs(4, 6656, k.open)
		require.NoError(t, err)
		defer shut(four)
		for range 16 {
			defer shut(k.connect(6656, guestAddr(3)))
		}
		requireClosed(t, k.connect(6656, guestAddr(3)))
		defer shut(k.connect(6656, guestAddr(4)))
		conn, err := four.Accept()
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	})
}

// TestEachPortHasItsListener: a peer's connection comes out where it went in.
func TestEachPortHasItsListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, s := newKernel(), &discovery.CIDSource{}
		ports := map[uint32]net.Listener{}
		for _, port := range []uint32{6656, 6657} {
			ln, err := s.ListenAs(3, port, k.open)
			require.NoError(t, err)
			defer shut(ln)
			ports[port] = ln
		}
		for _, port := range []uint32{6657, 6656, 6657} {
			guest := k.connect(port, guestAddr(3))
			defer shut(guest)
			conn, err := ports[port].Accept()
			require.NoError(t, err)
			require.NoError(t, conn.Close())
			requireClosed(t, guest)
		}
	})
}

// TestAcceptAfterClose is net.ErrClosed, also when nothing could be accepted as
// Close came, and the port has ended for another reason.
func TestAcceptAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, s := newKernel(), &discovery.CIDSource{}
		ln, err := s.ListenAs(3, 6656, k.open)
		require.NoError(t, err)
		k.ports[6656].errs <- passing{errDown}
		synctest.Wait() // it is waited out
		require.NoError(t, ln.Close())
		for range 64 {
			_, err := ln.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
		}
	})
}

// TestSharedListenerBreaks: all of its peers hear of it. Who listens from then on
// gets a new one, whether they have closed or not, and that is not theirs to close.
func TestSharedListenerBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, s := newKernel(), &discovery.CIDSource{}
		three, err := s.ListenAs(3, 6656, k.open)
		require.NoError(t, err)
		four, err := s.ListenAs(4, 6656, k.open)
		require.NoError(t, err)
		k.ports[6656].errs <- passing{errDown}
		k.ports[6656].errs <- errDown
		for _, ln := range []net.Listener{three, four} {
			_, err := ln.Accept()
			require.ErrorIs(t, err, errDown)
		}
		require.Positive(t, k.ports[6656].closes.Load(), "left open")
		again, err := s.ListenAs(3, 6656, k.open)
		require.NoError(t, err)
		require.Equal(t, 2, k.opens)
		require.NoError(t, three.Close())
		require.NoError(t, four.Close())
		five, err := s.ListenAs(5, 6656, k.open)
		require.NoError(t, err, "shared")
		for cid, ln := range map[uint32]net.Listener{3: again, 5: five} {
			guest := k.connect(6656, guestAddr(cid))
			defer shut(guest)
			conn, err := ln.Accept()
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}
		require.Equal(t, 2, k.opens)
		require.NoError(t, again.Close())
		require.NoError(t, five.Close())
		require.Positive(t, k.ports[6656].closes.Load(), "left open")
	})
	_, err := new(discovery.CIDSource).ListenAs(3, 1, func(uint32) (net.Listener, error) { return nil, errDown })
	require.ErrorIs(t, err, errDown)
}

// TestPeersListenAndCloseAtOnce: FAILURES 7. No port stays bound, no connection
// open, whoever comes and goes meanwhile.
func TestPeersListenAndCloseAtOnce(t *testing.T) {
	k, s := newKernel(), &discovery.CIDSource{}
	var peers, guests sync.WaitGroup
	var over atomic.Bool
	for cid := uint32(3); cid < 11; cid++ {
		peers.Go(func() {
			for range 100 {
				ln, err := s.ListenAs(cid, 6656, k.open)
				if err != nil {
					t.Error(err)
					return
				}
				var closing sync.WaitGroup
				for range 2 {
					closing.Go(func() { _ = ln.Close() })
				}
				if conn, err := ln.Accept(); err == nil {
					_ = conn.Close()
				}
				closing.Wait()
			}
		})
		guests.Go(func() {
			for !over.Load() {
				k.mu.Lock()
				there := k.ports[6656] != nil
				k.mu.Unlock()
				if !there {
					runtime.Gosched()
				} else if conn := k.connect(6656, guestAddr(cid)); conn != nil {
					_, _ = conn.Read(make([]byte, 1))
					_ = conn.Close()
				}
			}
		})
	}
	peers.Wait()
	over.Store(true)
	guests.Wait()
	require.Positive(t, k.ports[6656].closes.Load())
}

func TestCIDs(t *testing.T) {
	if runtime.GOOS != "linux" {
		_, err := discovery.CIDs(3).Peers(t.Context())
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = discovery.CIDPeer(3)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = discoverer(discovery.CIDs(3)).Discover(t.Context())
		require.ErrorIs(t, err, errors.ErrUnsupported)
		requirePermanent(t, err)
		return
	}
	peers, err := discovery.CIDs(3, 42).Peers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"3", "42"}, []string{peers[0].ID(), peers[1].ID()})
	peer, err := discovery.CIDPeer(42)
	require.NoError(t, err)
	require.Equal(t, "42", peer.ID())
	for _, cid := range []uint32{0, 2, 0xffffffff} {
		_, err := discovery.CIDPeer(cid)
		require.ErrorContains(t, err, "not that of a guest")
		requirePermanent(t, err)
		d := discoverer(discovery.CIDs(3, cid))
		_, err = d.Discover(t.Context())
		require.ErrorContains(t, err, "not that of a guest")
		requirePermanent(t, err)
	}
}

// TestVsockDialEndsWithItsContext: FAILURES 28. Some kernels know at once that
// nobody is there, others ask and wait for two seconds: not for longer than the
// context lasts, and no descriptor is left.
func TestVsockDialEndsWithItsContext(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // TestCIDs
	}
	var open []int
	for _, cid := range []uint32{1, 0x7ffffff0, 1} {
		peer, err := discovery.CIDPeer(cid)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err = peer.Dial(ctx, 0x7fff0001)
		cancel()
		require.Error(t, err)
		if _, answered := errors.AsType[syscall.Errno](err); !answered { // by the kernel, at once
			require.ErrorIs(t, err, context.DeadlineExceeded, "CID %d", cid)
		}
		_, err = peer.Dial(ctx, 0x7fff0001)
		require.ErrorIs(t, err, ctx.Err(), "it had ended before")
		open = append(open, descriptors(t))
	}
	require.Equal(t, open[0], open[2], "descriptors")
}
