// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// backlog is how many established connections wait for Accept.
const backlog = 128

// A peer that is gone without a word (its reset may have been dropped) is given
// up after some 10 minutes: long enough for a guest that is paused meanwhile.
const (
	keepAliveIdle     = 2 * time.Minute
	keepAliveInterval = time.Minute
	keepAliveCount    = 8
)

// A Conn is a TCP connection of the stack. It implements [net.Conn].
type Conn struct {
	*socket
	local, remote net.Addr
	peer          packet.MAC // zero: not known yet; guarded by writeMu, as is impatient
	impatient     time.Time  // when it was for the last time
	came          int        // bytes; guarded by readMu, as are busy and wide
	busy, wide    bool       // much came in, from a peer that is wide

	faultWait waiter.Entry
	closeMu   sync.Mutex  // held while unsent is measured
	finished  atomic.Bool // CloseWrite was called
	unsent    int         // bytes, at that time
	broken    context.Context
	breakOff  context.CancelFunc
}

func (s *Stack) newConn(ep tcpip.Endpoint, wq *waiter.Queue) *Conn {
	c := &Conn{socket: newSocket(s, "tcp", ep, wq)}
	c.broken, c.breakOff = context.WithCancel(context.Background())
	idle, interval := tcpip.KeepaliveIdleOption(keepAliveIdle), tcpip.KeepaliveIntervalOption(keepAliveInterval)
	_ = ep.SetSockOpt(&idle) // these can not fail
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepAliveCount)
	ep.SocketOptions().SetKeepAlive(true)
	// Asked for once: they are gone when the connection is.
	c.local = c.socket.LocalAddr()
	a, _ := ep.GetRemoteAddress()
	c.remote = c.netAddr(a)
	c.faultWait = waiter.NewFunctionEntry(waiter.EventErr|waiter.EventHUp, func(waiter.EventMask) { c.checkBroken() })
	wq.EventRegister(&c.faultWait)
	c.checkBroken()       // it may be so already
	_ = s.connections(+1) // it has worked before
	// What a Request becomes has the size that its forwarder was made with.
	if so, most := ep.SocketOptions(), s.receiveBuffer(); so.GetReceiveBufferSize() > most {
		so.SetReceiveBufferSize(most, false)
	}
	return c
}

// Broken returns a context that ends when the connection has failed, though
// nobody reads or writes: the peer reset it, answered neither data nor keep-alive
// probes, or the stack was closed. Nothing can be written any more, and what had
// not been acknowledged is lost. Neither the peer's FIN nor Close and Abort of
// this end end it.
func (c *Conn) Broken() context.Context { return c.broken }

// checkBroken is called with locks of the endpoint held: it only looks at the state.
func (c *Conn) checkBroken() {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateError:
	case tcp.StateClose:
		// Where both sides have finished this is the end of it. Where only the
		// peer has, it is what gVisor makes of a reset.
		if c.finished.Load() {
			return
		}
	default:
		return
	}
	c.breakOff()
}

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read implements [net.Conn].
func (c *Conn) Read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.check(&c.readBy); err != nil {
		return 0, c.opError("read", err)
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		w := tcpip.SliceWriter(b)
		res, err := c.ep.Read(&w, tcpip.ReadOptions{})
		switch err.(type) {
		case nil:
			c.grow(res.Count)
			return res.Count, nil
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.readable, &c.readBy); err != nil {
				return 0, c.opError("read", err)
			}
		case *tcpip.ErrClosedForReceive:
			if isClosed(c.closed) {
				return 0, c.opError("read", net.ErrClosed)
			}
			return 0, io.EOF
		default:
			return 0, c.opError("read", c.fault(err))
		}
	}
}

// Write implements [net.Conn].
func (c *Conn) Write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.check(&c.writeBy); err != nil {
		return 0, c.opError("write", err)
	}
	var r bytes.Reader
	for n := 0; n < len(b); {
		piece := b[n:]
		waited, err := c.awaitRoom(len(b))
		if err != nil {
			return n, c.opError("write", err)
		}
		if waited { // as may others have, who all go on now
			piece = piece[:min(len(piece), c.stack.WriteSize())]
		}
		r.Reset(piece)
		m, terr := c.ep.Write(&r, tcpip.WriteOptions{})
		n += int(m)
		switch terr.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.writable, &c.writeBy); err != nil {
				return n, c.opError("write", err)
			}
		default:
			return n, c.opError("write", c.fault(terr))
		}
	}
	return len(b), nil
}

// linkAddress returns the peer's address on the link, or zero.
func (c *Conn) linkAddress() packet.MAC {
	return c.stack.linkAddress(c.local.(*net.TCPAddr).AddrPort().Addr(), c.remote.(*net.TCPAddr).AddrPort().Addr())
}

// grow makes more room for what comes in when much has come, n bytes just now: to a peer
// that has little room itself some once, to others what gVisor thinks right. A window can
// not be taken back: what was announced and does not fit after all would be dropped here.
func (c *Conn) grow(n int) {
	if c.came += n; !c.busy && c.came >= much {
		c.busy, c.wide = c.stack.peer == nil, c.stack.peer == nil
		if p := c.stack.peerAt(c.linkAddress()); p != nil {
			c.busy, c.wide = true, p.Wide()
		}
		if so := c.ep.SocketOptions(); c.busy && !c.wide && so.GetReceiveBufferSize() == tcpBuffer {
			so.SetReceiveBufferSize(narrowBuffer, false)
		}
	}
	if c.wide {
		c.ep.ModerateRecvBuf(n)
	}
}

const (
	much = 64 << 10 // bytes that came in make a connection one that wants room for more
	bulk = 8 << 10  // bytes are a write that others may have to wait for
)

// roomPatience is how long a bulk write waits while too much is on its way to the peer.
// Then it takes its chance, as do those of the next roomPause: who put that there may
// never stop, or the peer be elsewhere by now.
const (
	roomPatience = time.Second
	roomPause    = 5 * time.Second
)

// awaitRoom waits, before n bytes are written, until what the stack sent would not be
// dropped, or for roomPatience, or until the connection has failed, which the endpoint
// tells. It reports whether it had to.
func (c *Conn) awaitRoom(n int) (waited bool, err error) {
	if n < bulk || c.stack.peer == nil || c.broken.Err() != nil {
		return false, nil
	}
	if c.peer == (packet.MAC{}) {
		c.peer = c.linkAddress()
	}
	var full <-chan struct{}
	if p := c.stack.peerAt(c.peer); p != nil { // asked anew: it may be there on a new connection
		full = p.Full()
	}
	if full == nil || time.Since(c.impatient) < roomPause {
		return false, nil
	}
	t := time.NewTimer(roomPatience)
	defer t.Stop()
	select {
	case <-c.closed:
		return true, net.ErrClosed
	case <-c.writeBy.done():
		return true, os.ErrDeadlineExceeded
	case <-t.C:
		c.peer, c.impatient = packet.MAC{}, time.Now()
	case <-full:
	case <-c.broken.Done():
	}
	return true, nil
}

// CloseWrite sends what is left and then FIN; reading goes on.
func (c *Conn) CloseWrite() error {
	c.closeMu.Lock()
	if !c.finished.Load() {
		c.unsent = unsent(c.ep)
		c.finished.Store(true)
	}
	c.closeMu.Unlock()
	return c.shutdown(tcpip.ShutdownWrite)
}

// CloseRead discards what the peer still sends.
func (c *Conn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

func (c *Conn) shutdown(how tcpip.ShutdownFlags) error {
	if isClosed(c.closed) {
		return c.opError("shutdown", net.ErrClosed)
	}
	if err := c.ep.Shutdown(how); err != nil {
		return c.opError("shutdown", c.fault(err))
	}
	return nil
}

// Close implements [net.Conn]. What was written before is still sent; the
// calls that are blocked return an error that Is [net.ErrClosed].
func (c *Conn) Close() error {
	c.end(func() {
		c.wq.EventUnregister(&c.faultWait)
		// Or a peer that only goes on saying that it has no room would keep for ever
		// what is still to be sent.
		orphaned := tcpip.TCPUserTimeoutOption(keepAliveIdle + keepAliveCount*keepAliveInterval)
		_ = c.ep.SetSockOpt(&orphaned)
		c.closeMu.Lock()
		left := c.unsent
		switch {
		case !c.finished.Load():
			left = unsent(c.ep)
		case tcp.EndpointState(c.ep.State()) == tcp.StateFinWait2: // all was acknowledged
			left = 0
		}
		c.closeMu.Unlock()
		c.stack.orphan(c.ep, c.wq, left, func() uint64 { return idOf(c.stack.peerAt(c.linkAddress())) })
		_ = c.stack.connections(-1)
	})
	return nil
}

// Abort closes the connection with RST, so that the peer does not take what it
// has got for all there was.
func (c *Conn) Abort() error {
	c.end(func() {
		c.wq.EventUnregister(&c.faultWait)
		c.ep.Abort()
		c.ep.Close()
		_ = c.stack.connections(-1)
	})
	return nil
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.network, Source: c.local, Addr: c.remote, Err: err}
}

// DialTCP connects from local to remote; a zero local is chosen by the stack.
// When ctx ends first, nothing is left of the attempt.
func (s *Stack) DialTCP(ctx context.Context, local, remote netip.AddrPort) (*Conn, error) {
	fail := func(err error) (*Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(remote), Err: err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	ep, wq, err := s.open(tcp.ProtocolNumber, func(ep tcpip.Endpoint) tcpip.Error {
		if local.IsValid() {
			if err := ep.Bind(fullAddress(local)); err != nil {
				return err
			}
		}
		err := ep.Connect(fullAddress(remote))
		if _, started := err.(*tcpip.ErrConnectStarted); started {
			return nil
		}
		return err
	})
	if err != nil {
		return fail(err)
	}
	established, notify := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&established)
	defer wq.EventUnregister(&established)
	if ep.Readiness(waiter.WritableEvents|waiter.EventHUp|waiter.EventErr) == 0 { // else it was faster than we
		select {
		case <-ctx.Done():
			ep.Abort()
			ep.Close()
			return fail(ctx.Err())
		case <-notify:
		}
	}
	if terr := ep.LastError(); terr != nil {
		ep.Close()
		if s.isClosed() {
			return fail(ErrClosed)
		}
		return fail(asError(terr))
	}
	return s.newConn(ep, wq), nil
}

// A Listener takes TCP connections. It implements [net.Listener].
type Listener struct{ *socket }

// ListenTCP listens on an address of the stack.
func (s *Stack) ListenTCP(addr netip.AddrPort) (*Listener, error) {
	ep, wq, err := s.open(tcp.ProtocolNumber, func(ep tcpip.Endpoint) tcpip.Error {
		// As the net package does: a listener may follow one that has just ended.
		ep.SocketOptions().SetReuseAddress(true)
		if err := ep.Bind(fullAddress(addr)); err != nil {
			return err
		}
		return ep.Listen(backlog)
	})
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
	}
	return &Listener{newSocket(s, "tcp", ep, wq)}, nil
}

// Accept implements [net.Listener]; the connection is a [*Conn].
func (l *Listener) Accept() (net.Conn, error) {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	if err := l.check(&l.readBy); err != nil {
		return nil, l.opError("accept", err)
	}
	for {
		ep, wq, err := l.ep.Accept(nil)
		switch err.(type) {
		case nil:
			return l.stack.newConn(ep, wq), nil
		case *tcpip.ErrWouldBlock:
			if err := l.wait(l.readable, &l.readBy); err != nil {
				return nil, l.opError("accept", err)
			}
		default:
			return nil, l.opError("accept", l.fault(err))
		}
	}
}
