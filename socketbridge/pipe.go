// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"time"
)

// A HalfCloser is a stream connection whose two directions end one by one:
// CloseWrite tells the peer that nothing follows, and reading goes on.
// *net.TCPConn, stream *net.UnixConn, *vsock.Conn, *tls.Conn and the connections
// of a message mode named pipe are such. A *net.UnixConn that is no stream is
// refused: its messages would lose their ends.
//
// Close must make a blocked Read and Write return, as it does for any net.Conn.
type HalfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// errIdle ends a pipe that carried no byte for as long as its owner allows.
var errIdle = fmt.Errorf("socketbridge: pipe: idle for too long: %w", os.ErrDeadlineExceeded)

// Pipe is [PipeContext] without a context and without statistics.
func Pipe(a, b HalfCloser) error {
	_, err := PipeContext(context.Background(), a, b)
	return err
}

// PipeContext joins a and b into one connection: it carries bytes both ways until
// both directions are done, and closes both. They are its own from the call on: it
// clears their deadlines, and has closed them when it returns, whatever happened.
//
// When one side stops writing, all that it had sent is delivered, the other side
// gets its CloseWrite, and the opposite direction stays open for as long as it takes.
//
// The error is nil when all that either side sent was delivered: both directions
// ended in EOF, or a peer that had sent its EOF went away altogether while the
// other had nothing for it. Any other end is an error that names the side and the
// cause, such as
//
//	socketbridge: pipe: read a: connection reset by peer
//
// A peer that closes while the other still sends to it ends that direction alone: what
// it had sent itself is delivered first, and the error says what was not. TCP that is
// closed with bytes unread takes back the end of what it was sent, so whatever is not
// known to be unix or vsock is then read for 2 s more, and what comes is thrown away.
// Not so when a unix or vsock peer went away after its EOF: a TCP peer that goes on
// sending to it is reset by the kernel, and what is on its way to that peer may be lost.
//
// Any other failure on one side ends both at once, and so does the end of ctx, even in
// the midst of a blocked write; the error then Is both ctx.Err() and
// [context.Cause](ctx). A TCP peer sees a reset in these cases, so that it cannot
// take the stream for complete. A nil connection, and the same one twice, are errors.
//
// # How a dead peer is noticed
//
// A peer whose direction is open is read from, so its death shows at once. On Linux
// this holds also for sockets whose peer has sent EOF before, although there is
// nothing left to read: a reset, and on unix sockets and vsock a plain close, end the
// pipe, even if nobody writes to that peer. A TCP peer that closes in good order after
// its FIN says nothing more, and is noticed when the next byte for it is refused.
//
// # Speed
//
// On Linux, bytes between any two of *net.TCPConn, stream *net.UnixConn and
// *vsock.Conn move inside the kernel once there are more than a few of them.
// Wrapped connections, and those of other systems, are copied through pooled buffers.
// An idle pipe costs two goroutines, that of the caller included, and a buffer of 8 or
// 32 KB for each connection that is copied from, as its Read waits with one; sockets on
// Linux wait without. For many connections at a time a [Bridge] is cheaper there, and
// quicker to answer.
func PipeContext(ctx context.Context, a, b HalfCloser) (Stats, error) {
	return pipe(ctx, a, b, 0, meter{})
}

// pipe is PipeContext that also ends, with errIdle, when no byte was accepted either
// way for as long as idle (0: never), and counts on m.
func pipe(ctx context.Context, a, b HalfCloser, idle time.Duration, m meter) (Stats, error) {
	if err := check(a, b); err != nil {
		return Stats{}, err
	}
	r := newRelay(a, b, idle, m)
	r.start(ctx)
	r.there.run()
	return r.wait()
}

// stream returns an error for a unix socket that is none: it would cut a message that
// is longer than the buffer.
func stream(conn any) error {
	if c, ok := conn.(*net.UnixConn); ok && c != nil {
		if at, ok := c.LocalAddr().(*net.UnixAddr); ok && at != nil && at.Net != "unix" {
			return fmt.Errorf("a socket of %s carries messages, and a stream is needed: use network unix", at.Net)
		}
	}
	return nil
}

// check refuses what cannot be joined, and closes it.
func check(a, b HalfCloser) (err error) {
	for i, conn := range []HalfCloser{a, b} {
		v := reflect.ValueOf(conn)
		if !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
			err = fmt.Errorf("socketbridge: pipe: connection %c is nil", 'a'+i)
		} else if i == 1 && err == nil && v.Comparable() && a == b {
			err = errors.New("socketbridge: pipe: a and b are the same connection")
		} else if bad := stream(conn); err == nil && bad != nil {
			err = fmt.Errorf("socketbridge: pipe: connection %c: %w", 'a'+i, bad)
		}
	}
	if err == nil {
		return nil
	}
	for _, conn := range []HalfCloser{a, b} {
		if v := reflect.ValueOf(conn); v.IsValid() && (v.Kind() != reflect.Pointer || !v.IsNil()) {
			_ = conn.Close()
		}
	}
	return err
}
