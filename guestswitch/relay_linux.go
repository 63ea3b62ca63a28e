// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
	"github.com/rancher-sandbox/guestnet/internal/rawio"
)

// toHost moves frames from the tap to the host until either fails: as many with
// one write as the tap has.
func (s *session) toHost() error {
	raw, err := s.tap.file.SyscallConn()
	if err != nil {
		return s.tapError(err)
	}
	b := newBatch()
	if err := s.send(b); err != nil { // the offer waits for nobody
		return hostError(err)
	}
	for {
		var empty bool
		var readErr error
		switch err := raw.Read(func(fd uintptr) bool {
			empty, readErr = s.drain(int(fd), b)
			return b.n > 0 || !empty // false: wait for the next frame
		}); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := s.commit(b); err != nil {
				return err
			}
		case err != nil:
			return s.tapError(err)
		}
		if err := s.send(b); err != nil {
			return hostError(err)
		}
		if readErr != nil {
			return s.tapError(readErr)
		}
	}
}

// drain fills b until the tap is empty, b is full, or the tap fails.
func (s *session) drain(fd int, b *batch) (empty bool, err error) {
	for range drainReads {
		if b.full() {
			break
		}
		h, f, err := b.read(fd)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return true, nil
		case err != nil:
			return false, err
		}
		if eth, ok := packet.ParseEthernet(f); !ok || eth.Type == packet.EtherOffload || !b.fits(h, f) {
			s.g.stats.refused.Add(1)
			continue
		}
		s.countOut(f)
		b.take(h, f)
		if s.tracing() != nil {
			b.traced = append(b.traced, tracedFrame{h, f})
		}
	}
	return false, nil
}

// countOut is for each frame that goes to the host.
func (s *session) countOut(f []byte) {
	s.g.stats.framesOut.Add(1)
	s.g.stats.bytesOut.Add(uint64(len(f)))
}

// send writes the frames of a batch to the host, and empties it.
func (s *session) send(b *batch) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	for _, t := range b.traced {
		s.traceOut.frame(s.tracing(), true, t.h, t.f)
	}
	err := s.writeLocked(b.buf[:b.n])
	b.n, b.traced = 0, b.traced[:0]
	return err
}

// writeLocked writes what has to be first before anything else. After a write that
// failed the stream may end inside a frame, so nothing follows it.
func (s *session) writeLocked(b []byte) error {
	if s.first != nil {
		b = append(s.first, b...)
		s.first = nil
	}
	if s.sendErr == nil && len(b) > 0 {
		_, s.sendErr = s.toConn.Write(b)
	}
	return s.sendErr
}

// sendFrame sends one that did not come from the tap.
func (s *session) sendFrame(f []byte) error {
	s.countOut(f)
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	s.traceOut.frame(s.tracing(), true, frame.Header{}, f)
	b := make([]byte, frame.MaxPrefixLen, frame.MaxPrefixLen+len(f))
	b = append(b[:frame.PutPrefix(b, s.offload, frame.Header{}, len(f))], f...)
	return s.writeLocked(b)
}

// toTap moves frames from the host to the tap until either fails. One frame that
// is refused, here or by the kernel, does not end it.
func (s *session) toTap() error {
	r, toTap := frame.NewReader(rawio.NewReader(s.conn)), rawio.NewWriter(s.tap.file)
	for heard := false; ; {
		f, err := r.Next()
		if err != nil {
			return hostError(err)
		}
		h := r.Header()
		eth, ok := packet.ParseEthernet(f)
		if eth.Type == packet.EtherOffload && s.offer.accepted(f) {
			r.Upgrade()
			if err := s.wakeForCommit(); err != nil {
				return s.tapError(err)
			}
			continue
		}
		if !ok || eth.Type == packet.EtherOffload || h.Check(f, len(f)) != nil || !s.tap.admits(eth, h.Longest(f, len(f))) {
			s.g.stats.refused.Add(1)
			continue
		}
		s.g.stats.framesIn.Add(1)
		s.g.stats.bytesIn.Add(uint64(len(f)))
		s.traceIn.frame(s.tracing(), false, h, f)
		if !heard {
			heard = true
			s.notify(Event{Kind: Heard})
		}
		if s.dhcp.take(eth) {
			continue
		}
		if _, err := toTap.Write(r.WithHeader()); errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADFD) {
			return s.tapError(err)
		} else if err != nil { // EINVAL, EIO while the interface is down, ENOBUFS
			s.g.stats.dropped.Add(1)
		}
	}
}

// hostError says what became of the data connection. A write notices the end
// before the read does now and then; it is the same end.
func hostError(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("guestswitch: the host closed the data connection: %w", err)
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("guestswitch: the host closed the data connection: %w (%w)", io.EOF, err)
	}
	return fmt.Errorf("guestswitch: the data connection failed: %w", err)
}

func (s *session) tapError(err error) error {
	if errors.Is(err, unix.EBADFD) {
		err = ErrTapLost
	}
	return fmt.Errorf("guestswitch: %s: %w", s.tap.link.Name, err)
}
