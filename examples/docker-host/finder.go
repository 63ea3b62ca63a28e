// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"time"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// searchTimeout is how long a connection waits for a VM that may have come in the
// place of one that does not answer.
const searchTimeout = 3 * time.Second

// A finder dials the VM that was found, and looks for another one when it cannot.
type finder struct {
	discoverer *discovery.Discoverer
	port       uint32
	found      chan discovery.Peer // holds the VM, except while it is looked for
}

func newFinder(d *discovery.Discoverer, port uint32) *finder {
	return &finder{discoverer: d, port: port, found: make(chan discovery.Peer, 1)}
}

// find looks for the VM for as long as it takes. It comes before dial.
func (f *finder) find(ctx context.Context) error {
	p, err := f.discoverer.Discover(ctx)
	if err != nil {
		return err
	}
	f.discoverer.Logger.Info("found the VM", "id", p.ID())
	f.found <- p
	return nil
}

func (f *finder) dial(ctx context.Context) (net.Conn, error) {
	known, err := f.take(ctx)
	if err != nil {
		return nil, err
	}
	f.found <- known
	conn, err := known.Dial(ctx, f.port)
	if err == nil {
		return conn, nil
	}
	p, searchErr := f.again(ctx, known)
	if searchErr != nil {
		return nil, err // it is still the one, as far as is known
	}
	return p.Dial(ctx, f.port)
}

// take waits until nobody looks for the VM.
func (f *finder) take(ctx context.Context) (discovery.Peer, error) {
	select {
	case p := <-f.found:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// again returns the VM that is there now, if another connection has not found one
// already.
func (f *finder) again(ctx context.Context, old discovery.Peer) (discovery.Peer, error) {
	p, err := f.take(ctx)
	if err != nil || p.ID() != old.ID() {
		if err == nil {
			f.found <- p
		}
		return p, err
	}
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	now, err := f.discoverer.Discover(ctx)
	if err != nil {
		f.found <- p
		return nil, err
	}
	f.found <- now
	f.discoverer.Logger.Info("found the VM again", "id", now.ID())
	return now, nil
}
