// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// A direction carries what src sends to dst.
type direction struct {
	r        *relay
	src, dst *side
	moved    int64         // bytes that dst has accepted
	total    *atomic.Int64 // the meter's, or nil

	fill  func() error // waits for src, and takes bytes from it
	drain func() error // until dst has accepted them
	sweep func() bool  // throws away what src has sent, and reports whether there was any
	watch func()       // after EOF: waits until src is gone for good, or closed
	leave func()       // gives back what is not for each byte

	buffer
	then error // what the last Read said beside its bytes

	quit atomic.Bool // reading ends because dst is gone

	// Guarded by r.mu:
	eof      bool // src has ended, and dst's writing half is closed, or being closed
	over     bool // nothing more to carry
	discards bool // dst is gone, and what src sends is thrown away
}

func (d *direction) init(r *relay, src, dst *side, total *atomic.Int64) {
	d.r, d.src, d.dst, d.total = r, src, dst, total
	d.fill, d.drain = d.read, d.write
	d.sweep = func() bool { return false }
	d.watch, d.leave = func() {}, func() {}
	d.useKernel()
}

// run carries until the end, whatever that is, and takes part in ending the relay.
func (d *direction) run() {
	err := d.carry()
	d.leave()
	if err != nil {
		d.r.close(err)
		return
	}
	d.r.ended(d)
}

// carry returns nil when dst has got all that src had sent, and knows that it is
// all; or when dst is gone, without a fault.
func (d *direction) carry() error {
	for {
		if err := d.fill(); err != nil {
			d.release()
			switch {
			case errors.Is(err, io.EOF):
				return d.closeWrite()
			case d.src.unread(err):
				d.r.lose(d.src.fault("read", err))
				return d.closeWrite()
			case d.quit.Load():
				return d.discard()
			}
			return d.src.fault("read", err)
		}
		err := d.drain()
		d.release()
		switch {
		case err == nil:
			continue
		case d.dst.closed(err), d.quit.Load():
			d.r.lose(d.dst.gone())
		case errors.Is(err, syscall.ECONNRESET):
			d.r.breaks(d.dst, d.dst.fault("write", err))
		default:
			return d.dst.fault("write", err)
		}
		return d.discard()
	}
}

// closeWrite passes the EOF on. That dst is gone already is for the opposite direction
// to find: what it was sent, it has accepted.
func (d *direction) closeWrite() error {
	d.r.mu.Lock()
	d.eof = true
	broken := d.src.broken
	d.r.mu.Unlock()
	if broken != nil {
		return broken
	}
	if err := d.dst.conn.CloseWrite(); err != nil && !isGone(err) {
		return d.dst.fault("close", err)
	}
	return nil
}

// discard is what is left to do when dst is gone. Its peer may have sent bytes before,
// and until they are delivered src stays open: so that its peer is not stuck with
// a write before it reads, it is told, if it can be, and else read.
func (d *direction) discard() error {
	sends := d.sweep() // which CloseRead may hide
	if sends {
		d.r.lose(d.dst.gone())
	}
	if c, ok := d.src.conn.(interface{ CloseRead() error }); ok && d.src.orderly {
		_ = c.CloseRead()
	}
	for d.r.discards(d, sends) {
		for {
			err := d.fill()
			d.release()
			if err == nil {
				d.r.lose(d.dst.gone())
				continue
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if !d.quit.Load() {
				return d.src.fault("read", err)
			}
			break
		}
	}
	if d.sweep() {
		d.r.lose(d.dst.gone())
	}
	return nil
}

// halt makes a waiting fill return, or reports that it cannot. r.mu is held, as for
// resume.
func (d *direction) halt() bool {
	d.quit.Store(true)
	return d.src.raw != nil && d.src.conn.(net.Conn).SetReadDeadline(time.Unix(1, 0)) == nil
}

func (d *direction) resume() bool {
	return !d.quit.CompareAndSwap(true, false) || d.src.conn.(net.Conn).SetReadDeadline(time.Time{}) == nil
}

// accepted counts.
func (d *direction) accepted(n int) {
	d.moved += int64(n)
	if d.total != nil {
		d.total.Add(int64(n))
	}
	if d.r.idle > 0 {
		d.r.last.Store(int64(time.Since(d.r.began)))
	}
}

// read is fill for any connection. Its buffer is held while it waits, hence small after
// a read that brought little.
func (d *direction) read() error {
	if d.then != nil {
		return d.then
	}
	for range 100 {
		buf := d.take()
		n, err := d.src.conn.Read(buf)
		if n < 0 || n > len(buf) {
			return errors.New("the connection claims an impossible count of bytes")
		}
		d.data, d.then = buf[:n], err
		d.bulk = n >= smallBuffer/2
		if n > 0 {
			return nil
		}
		d.release()
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// write is drain for any connection.
func (d *direction) write() error {
	n, err := d.dst.conn.Write(d.data)
	if n < 0 || n > len(d.data) {
		return errors.New("the connection claims an impossible count of bytes")
	}
	d.accepted(n)
	if err == nil && n < len(d.data) {
		err = io.ErrShortWrite
	}
	return err
}
