// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/mdlayher/vsock"
)

// backlog is how many connections of one peer wait to be accepted; further ones
// are closed, so that no guest fills this process.
const backlog = 16

// A cidHub has one vsock listener for each port on which at least one of its
// peers listens. The zero value is ready.
type cidHub struct {
	mu    sync.Mutex // held while a vsock listener opens or closes
	ports map[uint32]*cidPort
}

// A cidPort is a vsock listener with the goroutine that accepts from it.
type cidPort struct {
	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended
	err  error         // why it ended; after done

	mu    sync.Mutex
	peers map[uint32]*cidListener // by CID
}

// A cidListener is the part of a cidPort that one peer has.
type cidListener struct {
	hub    *cidHub
	port   *cidPort
	addr   *vsock.Addr
	cid    uint32
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *cidHub) listen(cid, port uint32, open func(uint32) (net.Listener, error), log *slog.Logger) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.ports[port]
	if p == nil || p.ended() {
		ln, err := open(port)
		if err != nil {
			return nil, err
		}
		ctx, stop := context.WithCancel(context.Background())
		p = &cidPort{stop: stop, done: make(chan struct{}), peers: map[uint32]*cidListener{}}
		if h.ports == nil {
			h.ports = map[uint32]*cidPort{}
		}
		h.ports[port] = p
		go p.run(ctx, ln, log)
	}
	l := &cidListener{
		hub: h, port: p, cid: cid, addr: &vsock.Addr{ContextID: anyCID, Port: port},
		conns: make(chan net.Conn, backlog), closed: make(chan struct{}),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peers[cid] != nil {
		return nil, fmt.Errorf("vsock port %d already has a listener for CID %d: close that one first", port, cid)
	}
	p.peers[cid] = l
	return l, nil
}

// run accepts until stop, and closes ln.
func (p *cidPort) run(ctx context.Context, ln net.Listener, log *slog.Logger) {
	defer close(p.done)
	defer func() { _ = ln.Close() }()
	defer closeWhenDone(ctx, ln)()
	var refused throttle
	p.err = accept(ctx, ln, log, func(conn net.Conn) {
		if !p.route(conn) {
			_ = conn.Close()
			refused.log(log, "discovery: refused a connection of a stranger, or of a peer with too many", "peer", conn.RemoteAddr(), "local", ln.Addr())
		}
	})
}

// ended reports whether nothing is accepted any more.
func (p *cidPort) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// route hands conn to the peer that it comes from.
func (p *cidPort) route(conn net.Conn) bool {
	addr, ok := conn.RemoteAddr().(*vsock.Addr)
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.peers[addr.ContextID]
	if l == nil {
		return false
	}
	select {
	case l.conns <- conn:
		return true
	default:
		return false
	}
}

func (l *cidListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
	case <-l.port.done:
		select {
		case <-l.closed: // which may be what has ended the port
		default:
			return nil, l.port.err
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.addr, Err: net.ErrClosed}
}

func (l *cidListener) Addr() net.Addr { return l.addr }

// Close closes what nobody has accepted yet, and the vsock listener if no other
// peer is left on it.
func (l *cidListener) Close() error {
	l.once.Do(func() {
		l.hub.mu.Lock()
		defer l.hub.mu.Unlock()
		l.port.mu.Lock()
		delete(l.port.peers, l.cid) // from here on nothing more is routed to conns
		last := len(l.port.peers) == 0
		l.port.mu.Unlock()
		close(l.closed)
		if last {
			l.port.stop()
			<-l.port.done
			if l.hub.ports[l.addr.Port] == l.port { // else another has taken the place of one that broke
				delete(l.hub.ports, l.addr.Port)
			}
		}
		for {
			select {
			case conn := <-l.conns:
				_ = conn.Close()
			default:
				return
			}
		}
	})
	return nil
}
