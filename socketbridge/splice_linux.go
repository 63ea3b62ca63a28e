// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

const (
	// A splice asks for at most this much. What a pipe holds is set by its slots,
	// and a slot may refer to more than a page.
	spliceMax = 1 << 20

	// A direction that waits for dst to take more looks this often whether src is
	// still there; nothing would wake it when it is not.
	blockedCheck = time.Second
)

// rawOf returns access to the descriptor of exactly those kinds of connection that
// hold no bytes themselves and whose descriptor is a stream socket, and whether that is
// unix or vsock.
func rawOf(conn HalfCloser) (raw syscall.RawConn, orderly bool) {
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
		orderly = true
	case *vsock.Conn:
		raw, err = c.SyscallConn()
		orderly = true
	case *vsockConn:
		raw, err = c.SyscallConn()
		orderly = true
	}
	if err != nil {
		return nil, orderly // closed: a plain Read will say so
	}
	return raw, orderly
}

// A kernel carries a direction whose src is a socket that may be used directly, and
// mostly dst as well. While src has nothing, fill waits without a buffer. What comes
// is first read into a small buffer, which is the fastest for what fits. Once that was
// full, bytes move from socket to pipe to socket without being copied here, for as
// long as many come at a time.
//
// The pipe is empty before each splice into it, so that EAGAIN means that src is dry,
// and exactly what it holds is spliced out, so that TCP has no reason to hold back
// the end.
type kernel struct {
	*direction
	readable, writable func(fd uintptr) bool // made once

	err     error       // of readable or writable
	splices bool        // as far as is known
	pipe    *kernelPipe // nil while src is dry
	held    int         // bytes in pipe
	user    bool        // of kernelPipes
	armed   bool        // dst has a write deadline
}

func (d *direction) useKernel() {
	if d.src.raw == nil {
		return
	}
	k := &kernel{direction: d}
	k.readable = k.onReadable
	d.fill, d.sweep, d.watch = k.fill, k.sweep, k.watch
	if d.dst.raw != nil {
		k.splices = true
		k.writable = k.onWritable
		d.drain, d.leave = k.drain, k.leave
	}
}

// fill waits for src, takes what it has, and returns EOF or an error only if it took
// nothing.
func (k *kernel) fill() error {
	if err := k.src.raw.Read(k.readable); err != nil {
		return err
	}
	return k.err
}

func (k *kernel) onReadable(fd uintptr) (done bool) {
	n, err := 0, error(unix.ENOSYS)
	if k.bulk && k.splices && !k.discards && k.takePipe() {
		n, err = splice(int(fd), k.pipe.w, spliceMax)
		if k.held = max(n, 0); k.held == 0 {
			k.putPipe()
		}
		k.splices = !refuses(err)
	}
	if refuses(err) || k.stopped(err) {
		buf := k.take()
		n, err = read(int(fd), buf)
		if k.data = buf[:max(n, 0)]; len(k.data) == 0 {
			k.release()
		}
	}
	if again(err) {
		return false
	}
	k.bulk = n >= smallBuffer
	if k.err = err; n == 0 && err == nil {
		k.err = io.EOF
	}
	return true
}

// stopped reports whether a splice that moved nothing may have stopped at the mark of
// TCP's urgent data, where it says what it says at the end or of a dry socket. A read
// goes on behind the mark.
func (k *kernel) stopped(err error) bool {
	_, tcp := k.src.conn.(*net.TCPConn)
	return tcp && k.held == 0 && (err == nil || again(err))
}

// drain waits until dst has accepted what fill took.
func (k *kernel) drain() error {
	err := k.dst.raw.Write(k.writable)
	for errors.Is(err, os.ErrDeadlineExceeded) {
		k.armed = false
		if err = k.setDeadline(time.Time{}); err != nil {
			break
		}
		k.checkSource()
		err = k.dst.raw.Write(k.writable)
	}
	if err == nil {
		err = k.err
	}
	if k.pipe != nil {
		k.putPipe()
	}
	return err
}

func (k *kernel) onWritable(fd uintptr) (done bool) {
	var n int
	for k.err = nil; k.err == nil; {
		switch {
		case len(k.data) > 0:
			if n, k.err = write(int(fd), k.data); k.err == nil {
				k.data = k.data[n:]
			}
		case k.held == 0:
			return true
		case k.splices:
			if n, k.err = splice(k.pipe.r, int(fd), k.held); k.err == nil {
				k.held -= n
			}
		default: // the kernel has taken the bytes, and refuses to pass them on
			k.err = k.unsplice()
			continue
		}
		switch {
		case k.err == nil && n > 0:
			k.accepted(n)
		case k.err == nil:
			k.err = io.ErrShortWrite
		case again(k.err):
			k.arm()
			return false
		case refuses(k.err) && len(k.data) == 0:
			k.splices, k.err = false, nil
		}
	}
	return true
}

// unsplice reads what it can from the pipe into a buffer.
func (k *kernel) unsplice() error {
	k.release()
	buf := k.take()
	n, err := read(k.pipe.r, buf[:min(len(buf), k.held)])
	if n <= 0 {
		return errors.Join(io.ErrUnexpectedEOF, err)
	}
	k.data, k.held = buf[:n], k.held-n
	return nil
}

// arm sees to it that drain looks at src from time to time while it waits.
func (k *kernel) arm() {
	if !k.armed {
		k.armed = k.setDeadline(time.Now().Add(blockedCheck)) == nil
	}
}

func (k *kernel) setDeadline(t time.Time) error {
	return k.dst.conn.(interface{ SetWriteDeadline(time.Time) error }).SetWriteDeadline(t)
}

// checkSource ends the relay when src has been reset, and the other direction when
// src is gone in good order: what it had sent before is still for dst.
func (k *kernel) checkSource() {
	var err error
	if k.src.raw.Control(func(fd uintptr) { err = k.state(fd) }) == nil {
		k.end(err) // not inside: Close waits for Control to return
	}
}

// watch waits until src, which has sent its EOF, is reset, gone or closed here. The
// poller wakes it for the first two as well.
func (k *kernel) watch() {
	var err error
	if k.src.raw.Read(func(fd uintptr) bool { err = k.state(fd); return err != nil }) == nil {
		k.end(err)
	}
}

// end acts upon what state found.
func (k *kernel) end(err error) {
	switch {
	case err == nil:
	case errors.Is(err, errHungUp):
		k.r.hangUp(k.direction)
	case errors.Is(err, errResetAfterEOF): // what it had sent is complete, and still delivered
		k.r.lose(k.src.fault("read", unix.ECONNRESET))
		k.r.hangUp(k.direction)
	default:
		k.r.close(k.src.fault("read", err))
	}
}

// hangUp is called by a direction whose source is found to be gone without a fault:
// no byte can go the opposite way any more.
func (r *relay) hangUp(d *direction) {
	other := r.opposite(d)
	r.mu.Lock()
	halted := r.over || other.over || other.eof || other.discards || other.halt()
	r.mu.Unlock()
	if !halted {
		r.close(nil) // what d carried is delivered: nothing else waits for a wrapper
	}
}

// What state finds, beside errors: that src's peer has closed, in good order or, of TCP,
// with a reset that came after its EOF.
var (
	errHungUp        = errors.New("hung up")
	errResetAfterEOF = errors.New("reset after its EOF")
)

// state tells without waiting whether src is still there. A write of no bytes sends
// nothing, on no kind of socket, and fails if one of some bytes would. Of TCP this
// could tell no more than the pending error.
func (k *kernel) state(fd uintptr) error {
	if _, ok := k.src.conn.(*net.UnixConn); !ok { // there, bytes to be read may precede the error
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
			if n == int(unix.EPIPE) {
				return errResetAfterEOF
			}
			return syscall.Errno(n)
		}
	}
	if k.src.orderly && unix.Send(int(fd), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) != nil {
		return errHungUp
	}
	return nil
}

// sweep throws away what src has sent, within bounds, and reports whether it had. A TCP
// socket that is closed with bytes unread resets, and with that takes back what is on
// its way to the peer.
func (k *kernel) sweep() (some bool) {
	_ = k.src.raw.Control(func(fd uintptr) {
		buf := k.take()
		defer k.release()
		for range sweepMax {
			if n, _ := read(int(fd), buf); n <= 0 {
				return
			}
			some = true
		}
	})
	return some
}

const sweepMax = 1024 // buffers

func read(fd int, b []byte) (n int, err error) {
	for {
		if n, err = unix.Read(fd, b); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func write(fd int, b []byte) (n int, err error) {
	for {
		if n, err = unix.Write(fd, b); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func splice(from, to, size int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, size, unix.SPLICE_F_NONBLOCK)
		if !errors.Is(err, unix.EINTR) {
			return int(n), err
		}
	}
}

func again(err error) bool { return errors.Is(err, unix.EAGAIN) }

// refuses reports whether the kernel does not splice a kind of socket, or may not, or
// has no memory to: nothing has moved, and copying may do.
func refuses(err error) bool {
	switch {
	case err == nil:
		return false
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP),
		errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOMEM):
		return true
	}
	return false
}
