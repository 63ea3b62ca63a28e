// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// A direction that waits for dst to take more looks this often whether src is still
// there; nothing would wake it when it is not.
const blockedCheck = time.Second

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
// mostly dst as well. While src has nothing, fill waits without a buffer.
type kernel struct {
	*direction
	mover
	readable, writable func(fd uintptr) bool // made once

	err   error // of readable or writable
	armed bool  // dst has a write deadline
}

func (d *direction) useKernel() {
	if d.src.raw == nil {
		return
	}
	k := &kernel{direction: d, mover: mover{buffer: &d.buffer, tcp: !d.src.orderly}}
	k.readable = k.onReadable
	d.fill, d.sweep, d.watch = k.fill, k.sweep, k.watch
	if d.dst.raw != nil {
		k.splices = true
		k.writable = k.onWritable
		d.drain, d.leave = k.drain, k.mover.leave
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
	k.err = k.receive(int(fd), k.discards)
	return !again(k.err)
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
	n, err := k.deliver(int(fd))
	if n > 0 {
		k.accepted(n)
	}
	if k.err = err; again(err) {
		k.arm()
		return false
	}
	return true
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
	if k.src.raw.Control(func(fd uintptr) { err = k.src.state(int(fd)) }) == nil {
		k.end(err) // not inside: Close waits for Control to return
	}
}

// watch waits until src, which has sent its EOF, is reset, gone or closed here. The
// poller wakes it for the first two as well.
func (k *kernel) watch() {
	var err error
	if k.src.raw.Read(func(fd uintptr) bool { err = k.src.state(int(fd)); return err != nil }) == nil {
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

func (k *kernel) sweep() (some bool) {
	_ = k.src.raw.Control(func(fd uintptr) { some = k.mover.sweep(int(fd)) })
	return some
}
