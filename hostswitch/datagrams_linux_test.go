// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"bytes"
	"errors"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sockets returns two, of which the first is connected to the second.
func sockets(t *testing.T) (a, b *net.UDPConn) {
	t.Helper()
	b, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	a, err = net.DialUDP("udp4", nil, b.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	t.Cleanup(func() { _ = a.Close() })
	for _, c := range []*net.UDPConn{a, b} {
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	}
	return a, b
}

// patience only bounds how long a broken test hangs.
const patience = 20 * time.Second

// control does something to the descriptor of a socket.
func control(t *testing.T, c *net.UDPConn, do func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = do(int(fd)) }))
	require.NoError(t, err)
}

// What is sent and taken in many at a time is what would be one at a time, with a
// kernel that cuts, with one that does not, and with a socket that may not.
func TestBatchesKeepDatagrams(t *testing.T) {
	sizes := []int{0, 700, 700, 700, 300, 0, 0, 1, 1, 1, 2, 1, 5000, 5000, 4999, 5000, 65507, 9, 9}
	for range 50 {
		sizes = append(sizes, 20)
	}
	var d datagrams
	var want [][]byte
	for i, n := range sizes {
		b := bytes.Repeat([]byte{byte(i)}, n)
		d.add(b)
		want = append(want, b)
	}
	for name, prepare := range map[string]func(*udpBatches){
		"cut":     func(c *udpBatches) { require.True(t, c.cuts, "Linux 4.18 or later") },
		"not cut": func(c *udpBatches) { c.cuts = false },
		"not allowed": func(c *udpBatches) { // the kernel does not cut without checksums
			control(t, c.UDPConn, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := sockets(t)
			all := newBatches()
			from, to := all.conn(a).(*udpBatches), all.conn(b)
			prepare(from)
			from.send(&d, func(err error) { require.NoError(t, err) })
			require.Equal(t, name == "cut", from.cuts)
			var got [][]byte
			for len(got) < len(want) {
				require.NoError(t, to.receive(func(some [][]byte) {
					for _, b := range some {
						got = append(got, bytes.Clone(b))
					}
				}))
			}
			for i := range want {
				require.True(t, bytes.Equal(want[i], got[i]), "number %d, of %d bytes", i, len(want[i]))
			}
		})
	}
}

// "Connection refused" is about a datagram before: it costs one, and no more.
func TestBatchesGoOnAfterAnError(t *testing.T) {
	a, b := sockets(t)
	connect := func(to *net.UDPConn) { // b hears nobody else
		at := to.LocalAddr().(*net.UDPAddr)
		control(t, b, func(fd int) error {
			return unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte(at.IP.To4()), Port: at.Port})
		})
	}
	connect(b)
	c := newBatches().conn(a)
	var one, ten datagrams
	one.add([]byte("who is there"))
	for i := range 10 {
		ten.add([]byte{byte(i)})
	}
	c.send(&one, func(err error) { require.NoError(t, err) })
	control(t, a, func(fd int) error {
		for {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, int(patience.Milliseconds())); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	connect(a)
	var failures []error
	c.send(&ten, func(err error) { failures = append(failures, err) })
	require.Len(t, failures, 1)
	require.ErrorIs(t, failures[0], errRefused)
	for i := 1; i < 10; i++ {
		buf := make([]byte, 2)
		n, err := b.Read(buf)
		require.NoError(t, err)
		require.Equal(t, []byte{byte(i)}, buf[:n])
	}
}

// However many flows have datagrams at once, few take them in at a time: the room for
// that is large.
func TestInboxesAreBounded(t *testing.T) {
	const flows = 3 * maxInboxes
	all := newBatches()
	taking, goOn := make(chan struct{}, flows), make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	end := sync.OnceFunc(func() { close(goOn) })
	defer end()
	for range flows {
		a, b := sockets(t)
		_, err := a.Write([]byte("x"))
		require.NoError(t, err)
		to := all.conn(b)
		wg.Go(func() {
			_ = to.receive(func([][]byte) { taking <- struct{}{}; <-goOn })
		})
	}
	next := func(limit time.Duration) bool {
		select {
		case <-taking:
			return true
		case <-time.After(limit):
			return false
		}
	}
	for range maxInboxes {
		require.True(t, next(patience))
	}
	require.False(t, next(50*time.Millisecond), "one more")
	end()
	for range flows - maxInboxes {
		require.True(t, next(patience), "all come to it")
	}
}

// Who waits for an answer to each datagram does not come to wait for a pace.
func TestPaceIsForManyDatagrams(t *testing.T) {
	var p pace
	now := time.Unix(1, 0)
	step := func(after time.Duration, n int) bool {
		now = now.Add(after)
		return p.slow(now, n)
	}
	require.False(t, step(0, 1), "the first")
	for range 1000 {
		require.False(t, step(30*time.Microsecond, 1), "33,000 a second")
	}
	for range 40 {
		step(20*time.Microsecond, 1)
	}
	for range 1000 {
		require.True(t, step(20*time.Microsecond, 1), "50,000 a second")
		require.True(t, step(200*time.Microsecond, 10), "the same in tens")
		require.False(t, step(400*time.Microsecond, inboxSize), "as many as can be")
	}
	for range 2 {
		step(time.Millisecond, 1)
	}
	require.False(t, step(time.Second, 1), "after a pause")
}

// Few processors are for few who wait a little: one at a time does, and none if there
// is no other.
func TestOnePausesAtATime(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	defer runtime.GOMAXPROCS(before)
	p := newBatches()
	paused := func() bool { // but for a signal
		for range 1000 {
			if p.pause() {
				return true
			}
		}
		return false
	}
	p.pausing.Lock()
	require.False(t, paused(), "somebody does")
	p.pausing.Unlock()
	require.True(t, paused())
	runtime.GOMAXPROCS(1)
	require.False(t, paused(), "one processor")
}

// A socket has its buffer widened, and never made smaller.
func TestBatchesKeepALargeBuffer(t *testing.T) {
	size := func(c *net.UDPConn) (n int) {
		control(t, c, func(fd int) (err error) {
			n, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
			return err
		})
		return n
	}
	a, b := sockets(t)
	before := size(a)
	newBatches().conn(a)
	require.GreaterOrEqual(t, size(a), before)
	require.NoError(t, b.SetReadBuffer(4*readBuffer))
	before = size(b) // what the system allows
	newBatches().conn(b)
	require.Equal(t, before, size(b))
}

// Where a filter of system calls does not know recvmmsg, datagrams come one at a time.
func TestBatchesWithoutRecvmmsg(t *testing.T) {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		a, b := sockets(t)
		var d datagrams
		for i := range 3 {
			d.add([]byte{byte(i)})
		}
		all := newBatches()
		all.conn(a).send(&d, func(err error) { require.NoError(t, err) })
		to := all.conn(b).(*udpBatches)
		filter := []unix.SockFilter{
			{Code: load}, // the number of the call
			{Code: equal, Jf: 1, K: unix.SYS_RECVMMSG},
			{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
			{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		}
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		got, failed := []byte(nil), make(chan error)
		go func() {
			runtime.LockOSThread() // and no UnlockOSThread: the thread ends with its filter
			err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			if err == nil {
				err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
			}
			for err == nil && len(got) < 3 {
				err = to.receive(func(some [][]byte) {
					for _, b := range some {
						got = append(got, b...)
					}
				})
			}
			failed <- err
		}()
		require.NoError(t, <-failed)
		require.Equal(t, []byte{0, 1, 2}, got)
		require.NotNil(t, to.one)
	}
}
