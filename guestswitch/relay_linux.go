// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

const (
	prefixLen = 2
	// batchSize is the buffer for frames on their way to the host: when the
	// longest no longer fits it is sent, so a write carries up to 64 KiB and one
	// frame.
	batchSize = 64<<10 + prefixLen + frame.MaxLen
	// drainReads bounds the time away from the poller, where Close is noticed.
	drainReads = 512
)

// toHost moves frames from the tap to the host until either fails: as many with
// one write as the tap has.
func (s *session) toHost() error {
	raw, err := s.tap.file.SyscallConn()
	if err != nil {
		return s.tapError(err)
	}
	buf := make([]byte, batchSize)
	for {
		var n int
		var empty bool
		var readErr error
		if err := raw.Read(func(fd uintptr) bool {
			n, empty, readErr = s.drain(int(fd), buf)
			return n > 0 || !empty // false: wait for the next frame
		}); err != nil {
			return s.tapError(err)
		}
		if n > 0 {
			if err := s.send(buf[:n]); err != nil {
				return hostError(err)
			}
		}
		if readErr != nil {
			return s.tapError(readErr)
		}
	}
}

// drain fills buf with encoded frames until the tap is empty, buf is full, or
// the tap fails.
func (s *session) drain(fd int, buf []byte) (n int, empty bool, err error) {
	for range drainReads {
		if len(buf)-n < prefixLen+frame.MaxLen {
			break
		}
		m, err := unix.Read(fd, buf[n+prefixLen:n+prefixLen+frame.MaxLen])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return n, true, nil
		case err != nil:
			return n, false, err
		}
		f := buf[n+prefixLen : n+prefixLen+m]
		if eth, ok := packet.ParseEthernet(f); !ok || eth.Type == packet.EtherOffload {
			s.g.stats.refused.Add(1)
			continue
		}
		s.countOut(f)
		binary.LittleEndian.PutUint16(buf[n:], uint16(m))
		n += prefixLen + m
	}
	return n, false, nil
}

// countOut is for each frame that goes to the host.
func (s *session) countOut(f []byte) {
	s.g.stats.framesOut.Add(1)
	s.g.stats.bytesOut.Add(uint64(len(f)))
	s.trace(true, f)
}

// send writes encoded frames to the host. After a write that failed the stream
// may end inside a frame, so nothing follows it.
func (s *session) send(b []byte) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	if s.sendErr == nil {
		_, s.sendErr = s.conn.Write(b)
	}
	return s.sendErr
}

// sendFrame sends one that did not come from the tap.
func (s *session) sendFrame(f []byte) error {
	s.countOut(f)
	return s.send(append(binary.LittleEndian.AppendUint16(make([]byte, 0, prefixLen+len(f)), uint16(len(f))), f...))
}

// toTap moves frames from the host to the tap until either fails. One frame that
// is refused, here or by the kernel, does not end it.
func (s *session) toTap() error {
	r := frame.NewReader(s.conn)
	for heard := false; ; {
		f, err := r.Next()
		if err != nil {
			return hostError(err)
		}
		eth, ok := packet.ParseEthernet(f)
		if !ok || eth.Type == packet.EtherOffload || !s.tap.admits(eth) {
			s.g.stats.refused.Add(1)
			continue
		}
		s.g.stats.framesIn.Add(1)
		s.g.stats.bytesIn.Add(uint64(len(f)))
		s.trace(false, f)
		if !heard {
			heard = true
			s.notify(Event{Kind: Heard})
		}
		if s.dhcp.take(eth) {
			continue
		}
		if _, err := s.tap.file.Write(f); errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADFD) {
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
