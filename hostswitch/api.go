// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"golang.org/x/time/rate"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Bounds on what a guest may ask of gateway:80.
const (
	maxGuestForwards = 1024
	maxRequestBody   = 16 << 10
	maxLogged        = 256 // bytes of a guest's words in one log line
	maxAPIConns      = 64
	maxGuestAPIConns = 8
	apiRate          = rate.Limit(100) // requests a second, for each guest connection
	apiBurst         = 1000            // a Compose project may publish a range of ports at once
)

// Handler returns the HTTP API for the host's side, compatible with
// gvisor-tap-vsock's: GET /services/forwarder/all, POST …/expose and …/unexpose;
// GET /services/dhcp/leases; GET /services/dns/all, POST …/add; GET /stats, /cam
// and /leases; and POST /connect, after which the connection carries a guest's
// frames, as gvproxy has it. What /stats has of IP and UDP is without the datagrams
// that go between a guest and the outside, but for the first of a conversation; its
// BytesSent and BytesReceived are of all. The server that uses it has to be one that lets
// connections be hijacked (HTTP/1.1), and ends with the Switch only if its owner
// shuts it down.
//
// Whoever can reach it can forward any port of the host: it belongs behind a unix
// socket or another address that only the user reaches. On the gateway's port 80
// guests get /services/forwarder/ only, and less of it.
func (s *Switch) Handler() http.Handler {
	mux := http.NewServeMux()
	s.handleForwarder(mux, func(*http.Request) (owner, int, error) { return owner{}, 0, nil })
	mux.HandleFunc("GET /services/dhcp/leases", s.getLeases)
	mux.HandleFunc("GET /leases", s.getLeases)
	mux.HandleFunc("GET /services/dns/all", s.getZones)
	mux.HandleFunc("POST /services/dns/add", s.addZone)
	mux.HandleFunc("GET /stats", s.getStats)
	mux.HandleFunc("GET /cam", s.getCAM)
	mux.HandleFunc("POST "+types.ConnectPath, s.connect)
	return mux
}

// serveAPI serves gateway:80 to the guests.
func (s *Switch) serveAPI() error {
	ln, err := s.stack.ListenTCP(netip.AddrPortFrom(s.net.Subnet.Gateway, 80))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	s.handleForwarder(mux, s.askingGuest)
	var conns sync.WaitGroup
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    maxRequestBody,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				conns.Done()
			case http.StateActive, http.StateIdle:
			}
		},
	}
	s.service("http", func() error {
		defer conns.Wait()
		defer onDone(s.ctx, func() { _ = server.Close() })()
		return server.Serve(quotaListener{ln, newQuota(maxAPIConns, maxGuestAPIConns), s.account})
	})
	return nil
}

// askingGuest tells which guest a request comes from, and in which session.
func (s *Switch) askingGuest(r *http.Request) (owner, int, error) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return owner{}, http.StatusForbidden, err
	}
	for _, n := range s.stack.Neighbors() {
		if n.Addr != from.Addr() || len(n.MAC) != 6 {
			continue
		}
		mac := packet.MAC(n.MAC)
		p := s.cam.lookup(mac)
		if p == nil {
			break
		}
		if !p.requests.Allow() {
			return owner{}, http.StatusTooManyRequests, errors.New("too many requests, try again in a second")
		}
		return owner{guest: from.Addr(), mac: mac, session: p.id}, 0, nil
	}
	return owner{}, http.StatusForbidden, fmt.Errorf("no guest is known at %s", from.Addr())
}

// handleForwarder adds the part that guests and host have in common. who says who
// asks, or with which status the request is refused.
func (s *Switch) handleForwarder(mux *http.ServeMux, who func(*http.Request) (owner, int, error)) {
	handle := func(pattern string, do func(by owner, w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			by, status, err := who(r)
			if err == nil {
				status, err = 0, do(by, w, r)
			}
			if err == nil {
				return
			}
			if status == 0 {
				status = statusOf(err)
			}
			s.refused(by, r, err)
			http.Error(w, err.Error(), status)
		})
	}
	handle("GET /services/forwarder/all", func(_ owner, w http.ResponseWriter, _ *http.Request) error {
		all := s.Forwards()
		if all == nil {
			all = []Forward{}
		}
		writeJSON(w, all)
		return nil
	})
	handle("POST /services/forwarder/expose", func(by owner, w http.ResponseWriter, r *http.Request) error {
		var req types.ExposeRequest
		if err := readJSON(w, r, &req); err != nil {
			return err
		}
		f := Forward{Protocol: string(req.Protocol), Local: req.Local, Remote: req.Remote}
		if by.guest.IsValid() && s.net.AllowExpose != nil {
			f, _, err := s.parseForward(f, by)
			first := forwardKey{f.Protocol, f.Local}
			if err == nil {
				err = s.net.AllowExpose(r.Context(), &f)
				if err != nil {
					err = fmt.Errorf("%w: %w", ErrForwardDenied, err)
				}
			}
			if err != nil {
				return &ForwardError{Op: "expose", Protocol: f.Protocol, Local: f.Local, Err: err}
			}
			_, err = s.expose(r.Context(), f, first, by)
			return err
		}
		_, err := s.expose(r.Context(), f, forwardKey{}, by)
		return err
	})
	handle("POST /services/forwarder/unexpose", func(by owner, w http.ResponseWriter, r *http.Request) error {
		var req types.UnexposeRequest
		if err := readJSON(w, r, &req); err != nil {
			return err
		}
		return s.unexpose(string(req.Protocol), req.Local, by)
	})
}

// refused tells of a guest that asked for what it may not have, but not more often
// than a person can read.
func (s *Switch) refused(by owner, r *http.Request, err error) {
	p := (*s.ports.Load())[by.session]
	if !by.guest.IsValid() || p == nil || !p.troubles.Allow() {
		return
	}
	text := err.Error()
	s.log.Warn("request of a guest refused", "guest", by.guest, "path", r.URL.Path, "error", text[:min(len(text), maxLogged)])
	s.events.emit(Event{Kind: Refused, Peer: by.peer(), Err: err})
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrForwardInvalid), errors.Is(err, errBadRequest):
		return http.StatusBadRequest
	case errors.Is(err, ErrForwardDenied):
		return http.StatusForbidden
	case errors.Is(err, ErrForwardUnknown):
		return http.StatusNotFound
	case errors.Is(err, ErrForwardExists):
		return http.StatusConflict
	case errors.Is(err, ErrClosed):
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

var errBadRequest = errors.New("bad request")

func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody)).Decode(v); err != nil {
		return fmt.Errorf("%w: the body is not the JSON that is wanted here: %w", errBadRequest, err)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone, then
}

// getLeases answers as gvisor-tap-vsock does: the gateway and reserved addresses
// are leases too.
func (s *Switch) getLeases(w http.ResponseWriter, _ *http.Request) {
	leases := map[string]string{s.net.Subnet.Gateway.String(): s.net.GatewayMAC.String()}
	for _, l := range s.dhcp.Leases() {
		leases[l.Addr.String()] = l.MAC.String()
	}
	writeJSON(w, leases)
}

func (s *Switch) getCAM(w http.ResponseWriter, _ *http.Request) {
	table := map[string]int{}
	s.cam.each(func(mac packet.MAC, p *port, _ time.Time) {
		table[mac.String()] = int(p.id)
	})
	writeJSON(w, table)
}

func (s *Switch) getStats(w http.ResponseWriter, _ *http.Request) {
	stats := s.stack.StatsTree()
	snap := s.Snapshot()
	stats["BytesSent"], stats["BytesReceived"] = snap.BytesOut, snap.BytesIn
	writeJSON(w, stats)
}

func (s *Switch) getZones(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, asWireZones(s.dns.Zones()))
}

func (s *Switch) addZone(w http.ResponseWriter, r *http.Request) {
	var z types.Zone
	err := readJSON(w, r, &z)
	if err == nil {
		if err = s.dns.AddZone(fromWireZone(z)); err != nil {
			err = fmt.Errorf("%w: %w", errBadRequest, err)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), statusOf(err))
	}
}

// connect turns the request's connection into a guest's. There is no response:
// what follows the request is frames, both ways.
func (s *Switch) connect(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this server can not hand over a connection: "+err.Error(), http.StatusInternalServerError)
		return
	}
	_ = conn.SetDeadline(time.Time{}) // the server's are for requests
	if n := buffered.Reader.Buffered(); n > 0 {
		early, _ := buffered.Reader.Peek(n)
		conn = &prefixedConn{Conn: conn, early: append([]byte(nil), early...)}
	}
	if err := s.Attach(r.Context(), conn, Port{}); err != nil {
		s.log.Warn("guest connection failed", "error", err)
	}
}

// A prefixedConn is a connection of which some bytes were read already.
type prefixedConn struct {
	net.Conn
	early []byte
}

// Read implements [io.Reader].
func (c *prefixedConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

var _ io.Reader = (*prefixedConn)(nil)
