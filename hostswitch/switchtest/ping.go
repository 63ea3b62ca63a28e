// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package switchtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// Ping sends ICMP echo requests to addr, one each second, until one is answered,
// and returns how long that took. When ctx ends first it returns its error.
func (g *Guest) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	fail := func(err error) (time.Duration, error) {
		return 0, fmt.Errorf("switchtest: ping %s: %w", addr, err)
	}
	if !addr.Is4() {
		return fail(fmt.Errorf("not an IPv4 address"))
	}
	seq, answered, err := g.expectEcho()
	if err != nil {
		return fail(err)
	}
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.pings, seq)
	}()
	message := make([]byte, packet.ICMPLen+56) // as ping(8) does
	message[0] = 8
	binary.BigEndian.PutUint16(message[4:], g.pingID)
	binary.BigEndian.PutUint16(message[6:], seq)
	binary.BigEndian.PutUint16(message[2:], packet.Checksum(0, message))

	repeat := time.NewTicker(again)
	defer repeat.Stop()
	for {
		src := g.Addr()
		if !src.IsValid() {
			return fail(g.orEnded(ErrNoAddress))
		}
		sent := time.Now()
		if err := g.stack.WriteICMP(src, addr, message); err != nil {
			return fail(g.orEnded(err))
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return fail(ctx.Err())
			case <-g.closing:
				return fail(ErrClosed)
			case <-g.done:
				return fail(ErrClosed)
			case <-repeat.C:
				waiting = false
			case from := <-answered:
				if from == addr {
					return time.Since(sent), nil
				}
			}
		}
	}
}

func (g *Guest) expectEcho() (uint16, <-chan netip.Addr, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range 1 << 16 {
		seq := g.pingSeq
		g.pingSeq++
		if _, used := g.pings[seq]; !used {
			c := make(chan netip.Addr, 4)
			g.pings[seq] = c
			return seq, c, nil
		}
	}
	return 0, nil, fmt.Errorf("all 65,536 numbers are in use")
}

func (g *Guest) takeEcho(src netip.Addr, seq uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case g.pings[seq] <- src: // nil blocks: nobody waits
	default:
	}
}
