// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// maxBuffers is how many are written with one call: Go's scheduler, and so its garbage
// collector, has to wait while the kernel copies them. (It takes 1024.)
const maxBuffers = 16

// sendBuffer is more than Linux gives a unix socket, with room for some super-frames.
const sendBuffer = 512 << 10

// A kind of descriptor.
type kind int

const (
	file kind = iota
	socket
	vsocket
)

// open returns the descriptor behind v, if it is of a kind that is known.
func open(v any) (raw syscall.RawConn, kind kind) {
	var err error
	switch v := v.(type) {
	case *net.TCPConn:
		kind = socket
		raw, err = v.SyscallConn()
	case *net.UnixConn:
		if !stream(v) {
			return nil, file
		}
		kind = socket
		raw, err = v.SyscallConn()
	case *vsock.Conn:
		kind = vsocket
		raw, err = v.SyscallConn()
	case *os.File:
		if raw, err = v.SyscallConn(); err == nil && blocks(raw) {
			return nil, file
		}
	}
	if err != nil {
		return nil, file
	}
	return raw, kind
}

// stream reports whether a unix socket is not one of messages.
func stream(c *net.UnixConn) bool {
	a := c.LocalAddr()
	return a != nil && a.Network() == "unix"
}

// Widen asks for more room in a unix socket on its way out, so that who reads it and
// who writes to it take turns less often. Other sockets see to that themselves.
func Widen(c net.Conn) {
	u, ok := c.(*net.UnixConn)
	if !ok || !stream(u) {
		return
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// The kernel tells twice of what it was told, and takes no more than it allows.
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil && n < 2*sendBuffer {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
		}
	})
}

// blocks reports whether a call may wait in the kernel, where the scheduler had better
// know of it. A socket is told in each call not to.
func blocks(raw syscall.RawConn) bool {
	var flags int
	var failed error
	err := raw.Control(func(fd uintptr) { flags, failed = unix.FcntlInt(fd, unix.F_GETFL, 0) })
	return err != nil || failed != nil || flags&unix.O_NONBLOCK == 0
}

// A Streak is of calls that did not wait. While all processors slept, so does the
// scheduler's monitor, and system calls that it is told of are what wakes it; without it
// nobody takes a processor from who never waits, nor looks after who waits for a network.
type Streak int

// Next is called before each; whoever has to wait begins a new Streak.
func (s *Streak) Next(fd uintptr) {
	if *s++; *s%64 == 0 {
		_, _ = unix.FcntlInt(fd, unix.F_GETFD, 0) // any call that it is told of would do
	}
}

// NewReader returns a reader of r for one goroutine at a time.
func NewReader(r io.Reader) io.Reader {
	raw, kind := open(r)
	if raw == nil {
		return r
	}
	rd := &reader{raw: raw, kind: kind}
	rd.try = rd.read // once: as an argument it would be allocated for each call
	return rd
}

type reader struct {
	raw  syscall.RawConn
	kind kind
	try  func(uintptr) bool

	b    []byte
	n    int
	err  syscall.Errno
	busy Streak
}

// Read implements [io.Reader].
func (r *reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	r.b, r.n, r.err = b, 0, 0
	err := r.raw.Read(r.try)
	r.b = nil
	switch {
	case err != nil:
		return 0, closed(err, r.kind)
	case r.err == 0 && r.n == 0, r.kind == vsocket && r.err == unix.ENOTCONN: // as vsock.Conn has it
		return 0, io.EOF
	case r.err != 0:
		return 0, os.NewSyscallError("read", r.err)
	}
	return r.n, nil
}

func (r *reader) read(fd uintptr) (done bool) {
	for {
		var n uintptr
		r.busy.Next(fd)
		b := unsafe.Pointer(unsafe.SliceData(r.b))
		if r.kind != file {
			n, _, r.err = unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(b), uintptr(len(r.b)), unix.MSG_DONTWAIT, 0, 0)
		} else {
			n, _, r.err = unix.RawSyscall(unix.SYS_READ, fd, uintptr(b), uintptr(len(r.b)))
		}
		switch r.err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			r.busy = 0
			return false
		case 0:
			r.n = int(n)
		}
		return true
	}
}

// closed is what went wrong before there was a system call. A file says of its end
// what is not os.ErrClosed.
func closed(err error, kind kind) error {
	if kind != file || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", os.ErrClosed, err)
}

// NewWriter returns a writer to w for one goroutine at a time. It also has a method
// WriteBuffers for many buffers, unless it is w itself.
func NewWriter(w io.Writer) io.Writer {
	raw, kind := open(w)
	if raw == nil {
		return w
	}
	wr := &writer{raw: raw, kind: kind}
	wr.try = wr.write
	return wr
}

type writer struct {
	raw  syscall.RawConn
	kind kind
	try  func(uintptr) bool

	store, left []unix.Iovec
	message     unix.Msghdr
	n           int64
	err         syscall.Errno
	busy        Streak
}

// Write implements [io.Writer].
func (w *writer) Write(b []byte) (int, error) {
	w.add(b)
	n, err := w.flush()
	return int(n), err
}

// WriteBuffers writes buffers one after the other, and changes neither them nor what
// is in them.
func (w *writer) WriteBuffers(buffers [][]byte) (int64, error) {
	for _, b := range buffers {
		w.add(b)
	}
	return w.flush()
}

func (w *writer) add(b []byte) {
	if len(b) > 0 {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		w.store = append(w.store, v)
	}
}

func (w *writer) flush() (int64, error) {
	w.left, w.n, w.err = w.store, 0, 0
	err := w.raw.Write(w.try)
	clear(w.store) // or it would keep what was written
	w.store, w.left, w.message = w.store[:0], nil, unix.Msghdr{}
	switch {
	case err != nil:
		err = closed(err, w.kind)
	case w.err != 0:
		err = os.NewSyscallError("write", w.err)
	}
	return w.n, err
}

func (w *writer) write(fd uintptr) (done bool) {
	for len(w.left) > 0 {
		var n uintptr
		w.busy.Next(fd)
		some := w.left[:min(len(w.left), maxBuffers)]
		if w.kind != file {
			w.message.Iov = unsafe.SliceData(some)
			w.message.SetIovlen(len(some))
			n, _, w.err = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&w.message)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		} else {
			n, _, w.err = unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(some))), uintptr(len(some)))
		}
		switch w.err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			w.busy = 0
			return false
		case 0:
			if n == 0 { // no socket and no tap does so
				w.err = unix.EIO
				return true
			}
			w.sent(int64(n))
		default:
			return true
		}
	}
	return true
}

// sent takes what was written from what is left.
func (w *writer) sent(n int64) {
	w.n += n
	for n > 0 {
		v := &w.left[0]
		if n < int64(v.Len) {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.SetLen(int(int64(v.Len) - n))
			return
		}
		n -= int64(v.Len)
		w.left = w.left[1:]
	}
}

// Readv is unix.Readv into head and then rest, for a descriptor that does not block.
func Readv(fd int, head, rest []byte) (int, error) {
	v := [...]unix.Iovec{{Base: unsafe.SliceData(head)}, {Base: unsafe.SliceData(rest)}}
	v[0].SetLen(len(head))
	v[1].SetLen(len(rest))
	for {
		n, _, err := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&v)), uintptr(len(v)))
		switch err {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, err
		}
	}
}
