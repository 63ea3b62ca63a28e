// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// maxAttempts is how many peers are probed at a time.
const maxAttempts = 64

// A search is one call of Discover. One goroutine has the state; each attempt and
// the listing have one of their own, which sends what came of it.
type search struct {
	*Discoverer
	log      *slog.Logger
	running  map[string]*attempt // by peer ID
	waiting  []Peer              // for one of maxAttempts, in order
	outcomes map[string]string   // last logged, by peer ID; "" for the Source
	last     error               // of a peer or of the Source

	results chan result
	lists   chan listing
	wg      sync.WaitGroup
}

type attempt struct {
	stop context.CancelFunc
	gone bool // the peer vanished, the attempt was stopped
}

type result struct {
	peer Peer
	err  error
}

type listing struct {
	peers []Peer
	err   error
}

func newSearch(d *Discoverer) *search {
	return &search{
		Discoverer: d,
		log:        logger(d.Logger),
		running:    map[string]*attempt{},
		outcomes:   map[string]string{},
		results:    make(chan result),
		lists:      make(chan listing),
	}
}

func logger(l *slog.Logger) *slog.Logger { return cmp.Or(l, slog.New(slog.DiscardHandler)) }

// run returns the first peer that matched, or why there will be none.
func (s *search) run(ctx context.Context) (Peer, error) {
	tick := time.NewTicker(cmp.Or(s.Interval, time.Second))
	defer tick.Stop()
	asking := true
	s.list(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil, s.notFound(ctx.Err())
		case <-tick.C:
			if !asking { // a slow one delays the next, not those who wait for results
				asking = true
				s.list(ctx)
			}
		case l := <-s.lists:
			asking = false
			if err := s.listed(ctx, l); err != nil {
				return nil, err
			}
		case r := <-s.results:
			if r.err == nil {
				return r.peer, nil
			}
			s.ended(ctx, r)
		}
		s.start(ctx)
	}
}

func (s *search) notFound(why error) error {
	err := fmt.Errorf("no peer found, %d still being asked: %w", len(s.running), why)
	if s.last != nil {
		err = fmt.Errorf("%w; last: %w", err, passingError{s.last})
	}
	return err
}

func (s *search) list(ctx context.Context) {
	s.wg.Go(func() {
		bounded, cancel := withTimeout(ctx, s.AttemptTimeout)
		defer cancel()
		peers, err := s.Source.Peers(bounded)
		select {
		case s.lists <- listing{peers, err}:
		case <-ctx.Done():
		}
	})
}

// listed takes in a listing; an error is one that will not change.
func (s *search) listed(ctx context.Context, l listing) error {
	switch {
	case l.err == nil:
		s.say("", "discovery: the source lists peers again", nil)
		s.update(l.peers)
	case isPermanent(l.err):
		return fmt.Errorf("list peers: %w", l.err)
	case ctx.Err() == nil: // else it only says so
		s.last = fmt.Errorf("list peers: %w", l.err)
		s.say("", "discovery: no list of peers, trying again", l.err)
	}
	return nil
}

// update takes in new peers: who is not among them is dropped, who is and is neither
// probed nor waiting gets in line.
func (s *search) update(peers []Peer) {
	wanted := map[string]Peer{}
	for _, p := range peers {
		if s.Match == nil || s.Match(p) {
			wanted[p.ID()] = p
		}
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(p Peer) bool { return wanted[p.ID()] == nil })
	for id, a := range s.running {
		if wanted[id] == nil {
			a.gone = true
			a.stop()
		}
	}
	for id := range s.outcomes {
		if id != "" && wanted[id] == nil {
			delete(s.outcomes, id)
		}
	}
	for _, p := range s.waiting {
		delete(wanted, p.ID())
	}
	for _, p := range peers {
		if id := p.ID(); wanted[id] != nil && s.running[id] == nil {
			s.waiting = append(s.waiting, wanted[id])
			delete(wanted, id)
		}
	}
}

// start probes who waits, as far as there is room.
func (s *search) start(ctx context.Context) {
	for len(s.waiting) > 0 && len(s.running) < maxAttempts {
		p := s.waiting[0]
		s.waiting = s.waiting[1:]
		one, stop := context.WithCancel(ctx)
		s.running[p.ID()] = &attempt{stop: stop}
		s.wg.Go(func() {
			err := s.attempt(one, p, func(context.Context, net.Conn) error { return nil })
			select {
			case s.results <- result{p, err}:
			case <-ctx.Done():
			}
		})
	}
}

// ended takes in a result that was not the one.
func (s *search) ended(ctx context.Context, r result) {
	if ctx.Err() != nil {
		return // it was cut
	}
	id := r.peer.ID()
	a := s.running[id]
	a.stop()
	delete(s.running, id)
	if !a.gone {
		s.last = r.err
		s.say(id, "discovery: not this peer, trying again", r.err)
	}
}

// say logs what came of a peer, or of the Source, if it is not what came of it
// the last time.
func (s *search) say(id, message string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if s.outcomes[id] == text {
		return
	}
	s.outcomes[id] = text
	switch {
	case err == nil:
		s.log.Info(message)
	case id == "":
		s.log.Warn(message, "error", err)
	default:
		s.log.Info(message, "error", err)
	}
}
