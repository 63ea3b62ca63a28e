// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

const (
	inboxSize   = 32        // datagrams
	maxInboxes  = 4         // of a table, 2 MB each if all datagrams are as long as can be
	readBuffer  = 512 << 10 // of a socket, at least; the kernel may know better (socket(7), rmem_max)
	maxRow      = 16        // Linux takes 64; the peer may be a program with a small buffer
	maxRowBytes = 1<<16 - 1 - 20 - 8
)

// batches hands out the means to move many datagrams with one system call.
type batches struct {
	inboxes sync.Pool
	out     chan struct{} // has room for another inbox that is in use
	pausing sync.Mutex    // held by who waits a little
}

func newBatches() *batches { return &batches{out: make(chan struct{}, maxInboxes)} }

// conn returns c with those means, unless it is something else than a socket: a
// wrapper may have reasons of its own.
func (p *batches) conn(c flowConn) batchConn {
	u, ok := c.(*net.UDPConn)
	if !ok {
		return newSingles(c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return newSingles(c)
	}
	b := &udpBatches{UDPConn: u, raw: raw, all: p}
	b.try = b.tryWrite
	_ = raw.Control(func(fd uintptr) {
		// The kernel tells twice of what it was told.
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil && n < 2*readBuffer {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, readBuffer)
		}
		// A kernel that does not know the option takes the message for a long datagram.
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		b.cuts = err == nil
	})
	return b
}

// udpBatches is a connected socket.
type udpBatches struct {
	*net.UDPConn
	raw  syscall.RawConn
	all  *batches
	cuts bool // the kernel makes datagrams of one message (udp(7), UDP_SEGMENT)
	pace pace
	one  *singles // nil unless recvmmsg is not allowed here
	busy rawio.Streak
	out  outbox
	try  func(uintptr) bool // of out
}

// A segment is the control message that says how long the datagrams of one write are;
// it ends where another would begin (cmsg(3), CMSG_SPACE).
type segment struct {
	unix.Cmsghdr
	size uint16
	_    [unix.SizeofPtr - 2]byte
}

// send hands a row of datagrams of one length to the kernel at a time.
func (c *udpBatches) send(d *datagrams, failed func(error)) {
	s := &c.out.segment
	s.Level, s.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	s.SetLen(unix.CmsgLen(2))
	for i, start := 0, 0; i < len(d.ends); {
		n, size := 1, d.ends[i]-start
		if c.cuts && size > 0 {
			n = d.row(i, start, min(maxRow, max(maxRowBytes/size, 1)))
		}
		if n > 1 {
			s.size = uint16(size)
		}
		err := c.write(d.bytes[start:d.ends[i+n-1]], n > 1)
		switch {
		case err == nil:
		case n > 1 && cannotCut(err):
			c.cuts = false
			continue
		default:
			n = 1 // what went wrong before is told once, and costs one datagram
			failed(err)
		}
		i += n
		start = d.ends[i-1]
	}
}

// An outbox is what a message to the kernel is made of.
type outbox struct {
	segment segment
	header  unix.Msghdr
	part    unix.Iovec
	err     error
}

// write sends what the kernel is to cut, or not. It is WriteMsgUDP without telling Go's
// scheduler, as package rawio is Write.
func (c *udpBatches) write(b []byte, cut bool) error {
	o := &c.out
	o.part.Base = unsafe.SliceData(b)
	o.part.SetLen(len(b))
	o.header.Iov = &o.part
	o.header.SetIovlen(1)
	o.header.Control = nil
	o.header.SetControllen(0)
	if cut {
		o.header.Control = (*byte)(unsafe.Pointer(&o.segment))
		o.header.SetControllen(int(unsafe.Sizeof(o.segment)))
	}
	err := c.raw.Write(c.try)
	o.part = unix.Iovec{}
	if err != nil {
		return err
	}
	return o.err
}

func (c *udpBatches) tryWrite(fd uintptr) (done bool) {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&c.out.header)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			c.out.err = nil
		default:
			c.out.err = os.NewSyscallError("sendmsg", errno)
		}
		return true
	}
}

// cannotCut reports whether one at a time a row may well be sent: its datagrams do not
// fit the MTU, or the network card has no checksums.
func cannotCut(err error) bool {
	for _, e := range []error{unix.EINVAL, unix.EIO, unix.EMSGSIZE, unix.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// An inbox is room for what one system call takes in.
type inbox struct {
	headers [inboxSize]mmsghdr
	parts   [inboxSize]unix.Iovec
	got     [inboxSize][]byte
	bytes   [inboxSize][64 << 10]byte // behind all pointers, where the garbage collector does not look
}

// mmsghdr is that of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

func newInbox() *inbox {
	in := new(inbox)
	for i := range in.headers {
		in.parts[i].Base = &in.bytes[i][0]
		in.parts[i].SetLen(len(in.bytes[i]))
		in.headers[i].Iov = &in.parts[i]
		in.headers[i].SetIovlen(1)
	}
	return in
}

// fill takes what is there, without waiting.
func (in *inbox) fill(fd uintptr, busy *rawio.Streak) ([][]byte, error) {
	for {
		busy.Next(fd)
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&in.headers[0])), inboxSize, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case 0:
			for i := range n {
				in.got[i] = in.bytes[i][:in.headers[i].n]
			}
			return in.got[:n], nil
		default:
			return nil, os.NewSyscallError("recvmmsg", errno)
		}
	}
}

func (c *udpBatches) receive(take func([][]byte)) error {
	if c.one != nil {
		return c.one.receive(take)
	}
	var n int
	var err error
	wait := c.raw.Read(func(fd uintptr) bool {
		c.all.out <- struct{}{} // soon: who waits for datagrams has no inbox, and take waits for nobody
		defer func() { <-c.all.out }()
		in, ok := c.all.inboxes.Get().(*inbox)
		if !ok {
			in = newInbox()
		}
		defer c.all.inboxes.Put(in)
		var got [][]byte
		if got, err = in.fill(fd, &c.busy); errors.Is(err, unix.EAGAIN) {
			c.busy = 0
			return false
		}
		if n = len(got); n > 0 {
			take(got)
		}
		return true
	})
	switch {
	case wait != nil:
		return wait
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // a filter says so (seccomp(2))
		c.one = newSingles(c.UDPConn)
		return nil
	}
	if c.pace.slow(time.Now(), n) {
		c.all.pause()
	}
	return err
}

// pause waits a little if nobody does, and reports whether it has: meanwhile one thread
// and one processor of Go's are of no use to others. A timer of Go's would leave them,
// and may take a millisecond.
func (p *batches) pause() bool {
	if runtime.GOMAXPROCS(0) == 1 || !p.pausing.TryLock() {
		return false
	}
	defer p.pausing.Unlock()
	// Go's scheduler is not told, as in package rawio, of what is sure to be short: not so
	// where whoever started this has put timers off.
	if slack, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0); errno != 0 || time.Duration(slack) > maxSlack {
		return false
	}
	t := unix.NsecToTimespec(paceWait.Nanoseconds())
	_, _, errno := unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
	return errno == 0
}

// A pace says when to wait a little, for more to take at a time: who is woken for
// each of many datagrams does little else, and so do those that it passes them on
// to. A network card does the same with its interrupts.
type pace struct {
	since time.Time
	count int
	fast  bool
}

// Datagrams come fast if there is one every paceEvery, or more, for paceSpan: who
// waits for an answer to each is slower. paceWait is what the kernel is asked for; it
// makes about 100 microseconds of it (PR_SET_TIMERSLACK(2const): 50 more are usual).
const (
	paceSpan  = time.Millisecond
	paceEvery = 25 * time.Microsecond
	paceWait  = 30 * time.Microsecond
	maxSlack  = 200 * time.Microsecond
)

// slow reports whether to wait; n datagrams have just been taken.
func (p *pace) slow(now time.Time, n int) bool {
	p.count += n
	if span := now.Sub(p.since); span >= paceSpan {
		p.fast = span < time.Duration(p.count)*paceEvery
		p.since, p.count = now, 0
	}
	return p.fast && n < inboxSize/2
}
