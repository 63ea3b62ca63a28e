// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// A splice asks for at most this much. What a pipe holds is set by its slots, and a
// slot may refer to more than a page.
const spliceMax = 1 << 20

// A mover takes bytes from one socket and gives them to another, and waits for neither.
// What comes is first read into a small buffer, which is the fastest for what fits.
// Once that was full, bytes move from socket to pipe to socket without being copied
// here, for as long as many come at a time.
//
// The pipe is empty before each splice into it, so that EAGAIN means that the source is
// dry, and exactly what it holds is spliced out, so that TCP has no reason to hold back
// the end.
type mover struct {
	*buffer
	tcp     bool        // the source is
	onLoop  bool        // the sockets do not block for long
	splices bool        // as far as is known
	user    bool        // of kernelPipes
	held    int         // bytes in pipe
	pipe    *kernelPipe // nil while the source is dry
}

// receive takes what the source fd has, and returns EOF or an error only if it took
// nothing. Of what is to be thrown away it makes no more than a buffer.
func (m *mover) receive(fd int, discards bool) error {
	n, err := 0, error(unix.ENOSYS)
	if m.bulk && m.splices && !discards && m.takePipe() {
		n, err = m.splice(fd, m.pipe.w, spliceMax)
		if m.held = max(n, 0); m.held == 0 {
			m.putPipe()
		}
		m.splices = !refuses(err)
	}
	if refuses(err) || m.stopped(err) {
		buf := m.take()
		n, err = read(fd, buf)
		if m.data = buf[:max(n, 0)]; len(m.data) == 0 {
			m.release()
		}
	}
	if again(err) {
		return err
	}
	m.bulk = n >= smallBuffer
	if n == 0 && err == nil {
		return io.EOF
	}
	return err
}

// stopped reports whether a splice that moved nothing may have stopped at the mark of
// TCP's urgent data, where it says what it says at the end or of a dry socket. A read
// goes on behind the mark.
func (m *mover) stopped(err error) bool {
	return m.tcp && m.held == 0 && (err == nil || again(err))
}

// deliver has fd accept what was received, and returns how much it did.
func (m *mover) deliver(fd int) (accepted int, err error) {
	var n int
	for err == nil {
		switch {
		case len(m.data) > 0:
			if n, err = write(fd, m.data); err == nil {
				m.data = m.data[n:]
			}
		case m.held == 0:
			return accepted, nil
		case m.splices:
			if n, err = m.splice(m.pipe.r, fd, m.held); err == nil {
				m.held -= n
			}
		default: // the kernel has taken the bytes, and refuses to pass them on
			err = m.unsplice()
			continue
		}
		switch {
		case err == nil && n > 0:
			accepted += n
		case err == nil:
			err = io.ErrShortWrite
		case refuses(err) && len(m.data) == 0:
			m.splices, err = false, nil
		}
	}
	return accepted, err
}

// unsplice reads what it can from the pipe into a buffer.
func (m *mover) unsplice() error {
	m.release()
	buf := m.take()
	n, err := read(m.pipe.r, buf[:min(len(buf), m.held)])
	if n <= 0 {
		return errors.Join(io.ErrUnexpectedEOF, err)
	}
	m.data, m.held = buf[:n], m.held-n
	return nil
}

// sweep throws away what fd has, within bounds, and reports whether it had. A TCP
// socket that is closed with bytes unread resets, and with that takes back what is on
// its way to the peer.
func (m *mover) sweep(fd int) (some bool) {
	buf := m.take()
	defer m.release()
	for range sweepMax {
		if n, _ := read(fd, buf); n <= 0 {
			return some
		}
		some = true
	}
	return some
}

const sweepMax = 1024 // buffers

// What state finds, beside errors: that the peer has closed, in good order or, of TCP,
// with a reset that came after its EOF.
var (
	errHungUp        = errors.New("hung up")
	errResetAfterEOF = errors.New("reset after its EOF")
)

// state tells without waiting whether the peer of s is still there. A write of no bytes
// sends nothing, on no kind of socket, and fails if one of some bytes would. Of TCP this
// could tell no more than the pending error.
func (s *side) state(fd int) error {
	if !s.local { // there, bytes to be read may precede the error
		if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
			if n == int(unix.EPIPE) {
				return errResetAfterEOF
			}
			return syscall.Errno(n)
		}
	}
	if s.orderly && unix.Send(fd, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) != nil {
		return errHungUp
	}
	return nil
}

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

// splice hardly waits on a loop (adopt), so the scheduler need not be told of it. It would
// take the processor away after a while, and most splices take as long.
func (m *mover) splice(from, to, size int) (int, error) {
	for {
		var n int64
		var err error
		if m.onLoop {
			r, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size), unix.SPLICE_F_NONBLOCK)
			if n = int64(r); errno != 0 {
				err = errno
			}
		} else {
			n, err = unix.Splice(from, nil, to, nil, size, unix.SPLICE_F_NONBLOCK)
		}
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
