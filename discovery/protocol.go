// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// A Protocol is what both ends of a handshake have to agree on.
type Protocol struct {
	Signature     string // what the guest sends, without a terminator
	HandshakePort uint32 // on which the guest listens
	DataPort      uint32 // on which the host listens, once it has found the guest
}

// The protocols of existing guests. They are not to be changed; make your own.
var (
	// RancherDesktop is spoken by all released hosts and images.
	RancherDesktop = Protocol{
		Signature:     "github.com/rancher-sandbox/rancher-desktop/src/go/networking",
		HandshakePort: 6669,
		DataPort:      6656,
	}
	// RancherDesktop2 is spoken by the opensuse image.
	RancherDesktop2 = Protocol{
		Signature:     "github.com/rancher-sandbox/rancher-desktop-opensuse/src/go/networking",
		HandshakePort: 6670,
		DataPort:      6657,
	}
)

// readySignal is what the host sends when it listens on the data port.
const readySignal = "READY"

// defaultTimeout bounds one turn with one peer, at either end.
const defaultTimeout = 5 * time.Second

// shown is how much an error quotes of what a peer sent, in bytes.
const shown = 64

// A MismatchError says that a peer answered with something else than the
// signature: it speaks another protocol, or the agent is not up yet and something
// else has the port.
type MismatchError struct {
	Peer     string // its ID
	Received string // at most the first 64 bytes
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("peer %s sent %q in place of the signature", e.Peer, e.Received)
}

// A permanentError is one that the next attempt meets again; a supervisor asks
// for it by the method.
type permanentError struct{ error }

func (e permanentError) Permanent() bool { return true }
func (e permanentError) Unwrap() error   { return e.error }

// A passingError hides that what it wraps is permanent.
type passingError struct{ error }

func (e passingError) Permanent() bool { return false }
func (e passingError) Unwrap() error   { return e.error }

func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// readSignature reads as many bytes as want has, and no more: what follows is not
// part of the handshake.
func readSignature(ctx context.Context, peer string, r io.Reader, want string) error {
	buf := make([]byte, len(want))
	n, err := io.ReadFull(r, buf)
	got := string(buf[:n])
	switch {
	case got == want:
		return nil
	case !strings.HasPrefix(want, got):
		return &MismatchError{Peer: peer, Received: got[:min(n, shown)]}
	default:
		return fmt.Errorf("peer %s sent %d of the %d bytes of the signature: %w", peer, n, len(want), cause(ctx, err))
	}
}

// cause returns why input or output on a bound connection failed: if it was cut,
// what has cut it, and not how that looked from inside.
func cause(ctx context.Context, err error) error {
	if _, ok := ctx.Deadline(); ok && errors.Is(err, os.ErrDeadlineExceeded) {
		<-ctx.Done() // has the same deadline, and may be a moment late
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// withTimeout bounds ctx: 0 is the default, a negative timeout none.
func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout < 0 {
		return context.WithCancel(ctx)
	}
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return context.WithTimeout(ctx, timeout)
}

// closeWhenDone has c closed when ctx ends. After release it is the caller's
// alone again, and nothing of this is left running.
func closeWhenDone(ctx context.Context, c io.Closer) (release func()) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = c.Close()
	})
	return func() {
		if !stop() {
			<-closed
		}
	}
}

// bind ends all input and output of conn when ctx ends. The deadline is for a
// connection whose Close does not wake up its readers.
func bind(ctx context.Context, conn net.Conn) (release func()) {
	if t, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(t)
	}
	return closeWhenDone(ctx, conn)
}

// unsupportedForGood marks an error that only another system would not give.
func unsupportedForGood(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return permanentError{err}
	}
	return err
}
