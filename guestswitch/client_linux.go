// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

const (
	// A question is sent four times: after 1, 3 and 7 s again, given up after 15.
	// The server is the host next door, and may start after the guest.
	firstTimeout = time.Second
	tries        = 4
	// Between attempts that failed.
	minWait, maxWait = time.Second, 30 * time.Second
	// minRetry between questions for the same lease: RFC 2131, section 4.4.5.
	minRetry = time.Minute
	// releaseTimeout bounds what giving the lease back may cost the end of a run.
	releaseTimeout = 100 * time.Millisecond
)

var errExpired = errors.New("the lease ran out, the server does not answer")

// action configures the interface, or does not, with udhcpc's names for it:
// deconfig, bound, renew, nak, leasefail. Only bound and renew have a lease; nak
// has the message.
type action func(ctx context.Context, name string, g *grant) error

// client keeps a lease: RFC 2131, figure 5, without INIT-REBOOT.
type client struct {
	nc     *nclient4.Client
	act    action
	mtu    func(Lease) error
	notify func(Event)
	warn   func(what string, err error)
}

// run gets a lease and keeps it, over and over until ctx ends. It returns the
// last one if that is still valid. It leaves the interface configured.
func (c *client) run(ctx context.Context) *grant {
	c.do(ctx, "deconfig", nil)
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		g, err := c.acquire(ctx)
		held := err == nil
		if held {
			wait = minWait
			g, err = c.hold(ctx, g)
		}
		if ctx.Err() != nil {
			return g
		}
		e := Event{Kind: Failed, Err: fmt.Errorf("guestswitch: DHCP: %w", err)}
		if held {
			e.Kind, e.Lease = LeaseLost, g.lease
		}
		var nak *nclient4.ErrNak
		switch {
		case errors.As(err, &nak):
			c.do(ctx, "nak", &grant{ack: nak.Nak})
		case !held:
			c.do(ctx, "leasefail", nil)
		}
		if held {
			c.do(ctx, "deconfig", nil)
		}
		c.notify(e)
		sleepUntil(ctx, time.Now().Add(wait/2+rand.N(wait/2)))
	}
}

// do takes an action that nothing depends on.
func (c *client) do(ctx context.Context, name string, g *grant) {
	c.warn(name, c.act(ctx, name, g))
}

// acquire asks for a lease and configures the interface with it.
func (c *client) acquire(ctx context.Context) (*grant, error) {
	offer, err := c.nc.DiscoverOffer(ctx, options)
	if errors.Is(err, nclient4.ErrNoResponse) {
		return nil, fmt.Errorf("no server answers; does the host have one? (%w)", err)
	}
	if err != nil {
		return nil, err
	}
	asked := time.Now()
	l, err := c.nc.RequestFromOffer(ctx, offer, options)
	if err != nil {
		return nil, err
	}
	g, err := newGrant(l.ACK, nil, asked)
	if err != nil {
		return nil, err
	}
	c.notify(Event{Kind: Leased, Lease: g.lease})
	if err := c.configure(ctx, "bound", g); err != nil {
		return nil, errors.Join(err, c.act(ctx, "deconfig", nil))
	}
	c.notify(Event{Kind: Configured, Lease: g.lease})
	return g, nil
}

func (c *client) configure(ctx context.Context, name string, g *grant) error {
	if err := c.mtu(g.lease); err != nil {
		return err
	}
	return c.act(ctx, name, g)
}

// hold extends the lease as long as the server lets it. It returns the last one
// with the reason for the end.
func (c *client) hold(ctx context.Context, g *grant) (*grant, error) {
	for {
		if g.end.IsZero() {
			<-ctx.Done()
			return g, ctx.Err()
		}
		sleepUntil(ctx, g.t1)
		next, err := c.extend(ctx, g)
		if err != nil {
			return g, err
		}
		g = next
		if err := c.configure(ctx, "renew", g); err != nil {
			return g, err
		}
		c.notify(Event{Kind: Renewed, Lease: g.lease})
	}
}

// extend asks the server until T2, then anyone until the end.
func (c *client) extend(ctx context.Context, g *grant) (*grant, error) {
	for {
		now := time.Now()
		until := g.t2
		to := &net.UDPAddr{IP: g.lease.Server.AsSlice(), Port: serverPort}
		if !now.Before(g.t2) {
			until, to = g.end, nclient4.DefaultServers
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !now.Before(g.end):
			return nil, errExpired
		}
		next, err := c.ask(ctx, g, to, until)
		var nak *nclient4.ErrNak
		if err == nil || errors.As(err, &nak) {
			return next, err
		}
		again := now.Add(max(minRetry, until.Sub(now)/2))
		if again.After(until) {
			again = until
		}
		sleepUntil(ctx, again)
	}
}

func (c *client) ask(ctx context.Context, g *grant, to *net.UDPAddr, until time.Time) (*grant, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	asked := time.Now()
	request, err := dhcpv4.NewRenewFromAck(g.ack, options)
	if err != nil {
		return nil, err
	}
	reply, err := c.nc.SendAndRead(ctx, to, request, nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak))
	if err != nil {
		return nil, err
	}
	if reply.MessageType() == dhcpv4.MessageTypeNak {
		return nil, &nclient4.ErrNak{Offer: g.ack, Nak: reply}
	}
	return newGrant(reply, g, asked)
}

// release gives the lease back with one datagram, which nobody answers.
func (c *client) release(g *grant) { _ = c.nc.Release(&nclient4.Lease{ACK: g.ack}) }

// options is what each question asks for, and how much the answer may be.
func options(d *dhcpv4.DHCPv4) {
	d.UpdateOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize))
	d.UpdateOption(dhcpv4.OptParameterRequestList(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName,
		dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionBroadcastAddress,
		dhcpv4.OptionNTPServers, dhcpv4.OptionDNSDomainSearchList))
}

func sleepUntil(ctx context.Context, t time.Time) {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
