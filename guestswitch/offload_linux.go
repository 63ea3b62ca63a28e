// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"crypto/rand"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// gatewayMAC is where an offer goes: the switch and the stack of a host that does
// not know it drop it there.
var gatewayMAC = packet.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd}

// offer asks the host for the offload format (PROTOCOL, "Offload extension").
type offer struct {
	mac     packet.MAC
	nonce   [16]byte
	pending bool // the host has not accepted; belongs to toTap
}

func newOffer(mac packet.MAC) *offer {
	o := &offer{mac: mac, pending: true}
	_, _ = rand.Read(o.nonce[:]) // never fails
	return o
}

// message returns the offer, or the commitment that follows, in plain format.
func (o *offer) message(kind frame.Kind) []byte {
	return encodePlain(frame.Message{Kind: kind, Features: frame.FeatureTCPv4, Nonce: o.nonce}.Frame(gatewayMAC, o.mac))
}

// accepted reports whether f is the host's consent, which counts once. A nil offer
// was never made.
func (o *offer) accepted(f []byte) bool {
	m, ok := frame.ParseMessage(f)
	if !ok || o == nil || !o.pending || m.Kind != frame.Accept || m.Nonce != o.nonce || m.Features != frame.FeatureTCPv4 {
		return false
	}
	o.pending = false
	return true
}

// wakeForCommit has toHost change its format: the tap's reader, whether it waits
// for a frame or is about to, gets os.ErrDeadlineExceeded.
func (s *session) wakeForCommit() error { return s.tap.file.SetReadDeadline(time.Unix(1, 0)) }

// commit tells the host what follows, and only then lets the tap hand over what
// the plain format cannot carry.
func (s *session) commit(b *batch) error {
	if err := s.tap.file.SetReadDeadline(time.Time{}); err != nil {
		return s.tapError(err)
	}
	s.sendMu.Lock()
	err := s.writeLocked(s.offer.message(frame.Commit))
	s.offload = true
	s.sendMu.Unlock()
	if err != nil {
		return hostError(err)
	}
	b.setFormat(true)
	s.warn("offload to the host", s.tap.setOffload(unix.TUN_F_CSUM|unix.TUN_F_TSO4))
	return nil
}

// setOffload says what the kernel may leave to the reader of the tap. It goes
// with the tap, of which each session has its own.
func (t *tap) setOffload(features int) error {
	return t.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, features) })
}

// setHeader has each frame begin with the header of virtio 1.0.
func (t *tap) setHeader() error {
	return t.control(func(fd int) error {
		return errors.Join(
			unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, frame.HeaderLen),
			unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1),
			unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0))
	})
}

// control keeps the descriptor non-blocking, as Fd would not.
func (t *tap) control(f func(fd int) error) error {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	err = raw.Control(func(fd uintptr) { done = os.NewSyscallError("ioctl", f(int(fd))) })
	return errors.Join(err, done)
}
