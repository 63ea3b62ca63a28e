// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

var errAddrGone = errors.New("guestswitch: DHCP: the interface has no address any more")

// supervise runs a DHCP client until ctx ends, and looks at the interface for
// what the client does.
func (s *session) supervise(ctx context.Context, argv []string) error {
	var events *nl.NetlinkSocket
	err := s.g.try("watch the address", func() error {
		return s.tap.ns.do(func() (err error) {
			events, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR)
			return err
		})
	})
	if err != nil {
		return err
	}
	var watch addrWatch
	var watcher sync.WaitGroup
	watcher.Go(func() { watch.run(s, events) })
	defer watcher.Wait()
	defer events.Close()

	for wait := minWait; ctx.Err() == nil; wait = min(2*wait, maxWait) {
		started := time.Now()
		err := s.process(ctx, argv, nil)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			s.notify(Event{Kind: Exited})
			<-ctx.Done()
		default:
			watch.forget.Store(true)
			s.notify(Event{Kind: Failed, Err: fmt.Errorf("guestswitch: DHCP: %w", err)})
			if time.Since(started) > maxWait {
				wait = minWait
			}
			sleepUntil(ctx, time.Now().Add(wait))
		}
	}
	return nil
}

// addrWatch makes events of the interface's address.
type addrWatch struct{ forget atomic.Bool } // the next look finds news

func (w *addrWatch) run(s *session, events *nl.NetlinkSocket) {
	var last netip.Prefix
	for {
		// What the message says is not read, so that one that was lost in an
		// overrun (ENOBUFS) does no harm. Any other error is the socket closed.
		if _, _, err := events.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		now := s.tap.addr()
		if w.forget.Swap(false) {
			last = netip.Prefix{}
		}
		switch {
		case now == last:
		case now.IsValid():
			s.notify(Event{Kind: Configured, Lease: Lease{Addr: now}})
		default:
			s.notify(Event{Kind: LeaseLost, Lease: Lease{Addr: last}, Err: fmt.Errorf("%w (%s)", errAddrGone, last)})
		}
		last = now
	}
}

// addr returns the first IPv4 address.
func (t *tap) addr() netip.Prefix {
	list, err := t.nl.AddrList(t.link, netlink.FAMILY_V4)
	if err != nil || len(list) == 0 {
		return netip.Prefix{}
	}
	a, _ := ipv4(list[0].IP)
	bits, _ := list[0].Mask.Size()
	return netip.PrefixFrom(a, bits)
}
