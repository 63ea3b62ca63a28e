// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command rdd-guest runs in the guest and gives its Docker socket to the host, and
// to nobody else.
//
//	rdd-guest                                            # vsock port 6660, for CID 2, the host
//	rdd-guest -listen vsock:6661 -target unix:/run/podman/podman.sock
//	rdd-guest -listen unix:/tmp/guest.sock -allow uid:1000
//
// Whoever reaches a Docker socket is root. A vsock port can be reached by every
// process of the guest itself too, in a container or not; they have CID 1 or the
// guest's own, and are refused before Docker is dialled.
//
// On SIGTERM it takes no more connections, and ends when those that it has have
// ended, or after -drain. A second SIGTERM ends it at once.
//
// It fits a systemd unit of Type=notify, see rdd-guest.service, and takes the
// socket of a .socket unit if it was started with one and there is no -listen.
// The Dockerfile builds it as a static binary for an image of a guest.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func main() {
	os.Exit(run(service.UntilSignal(), os.Args[1:], os.Stderr))
}

func run(ctx context.Context, args []string, stderr io.Writer) int {
	return service.Run(ctx, "rdd-guest", args, stderr, parse, serve)
}

func serve(ctx context.Context, o options) error {
	ln, err := o.open(ctx)
	if err != nil {
		return err
	}
	if o.bridge.Filter == nil { // only now is it known what an inherited socket is
		if o.bridge.Filter, err = filter(o.allowed, ln.Addr().Network()); err != nil {
			_ = ln.Close()
			return err
		}
	}
	if scheme, path := service.Address(o.target); scheme == "unix" {
		service.WarnMissing(o.bridge.Logger, "target", o.target, path)
	}
	return service.Serve(ctx, o.bridge, ln, "bridging to "+o.target)
}

type options struct {
	bridge         *socketbridge.Bridge
	listen, target string
	open           listenFunc // of listen
	allowed        []rule
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{bridge: &socketbridge.Bridge{}}
	flags := flag.NewFlagSet("rdd-guest", flag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", "", "`where` the host connects: vsock:PORT, unix:PATH, tcp:ADDRESS:PORT or fd:NUMBER (default systemd's socket, or else vsock:6660)")
	flags.StringVar(&o.target, "target", "unix:/var/run/docker.sock", "`where` the connections lead: unix:PATH or tcp:ADDRESS:PORT")
	flags.Func("allow", "`filter` of who may connect: cid:N, uid:N, a prefix such as 10.0.0.0/8, or any; may be repeated (default cid:2, the host, on vsock; the own user on unix)", func(s string) error {
		r, err := parseRule(s)
		o.allowed = append(o.allowed, r)
		return err
	})
	service.Flags(flags, o.bridge)
	o.bridge.Logger = service.Logger(flags, stderr, "log every connection")

	err := service.Parse(flags, args, stderr, "[flags]")
	if err != nil {
		return o, err
	}
	if o.open, err = listener(o.listen); err != nil {
		return o, fmt.Errorf("-listen %s: %w", o.listen, err)
	}
	if o.bridge.Dial, err = dialer(o.target); err != nil {
		return o, fmt.Errorf("-target %s: %w", o.target, err)
	}
	if scheme, _ := service.Address(cmp.Or(o.listen, "fd:")); scheme != "fd" {
		if o.bridge.Filter, err = filter(o.allowed, scheme); err != nil {
			return o, err
		}
	}
	return o, nil
}

// filter has those let in who are allowed on a network, and by default the host or
// this user. A filter that refuses everybody is an error.
func filter(allowed []rule, network string) (socketbridge.PeerFilter, error) {
	var filters []socketbridge.PeerFilter
	for _, r := range allowed {
		if r.network == "" || r.network == network {
			filters = append(filters, r.PeerFilter)
		}
	}
	switch {
	case filters != nil:
		return socketbridge.AnyOf(filters...), nil
	case allowed != nil:
		return nil, fmt.Errorf("-allow lets nobody in on a socket of %s: cid is for vsock, uid for unix, a prefix for tcp", network)
	}
	if host := service.Host(network); host != nil {
		return host, nil
	}
	return nil, fmt.Errorf("-allow is missing: everyone reaches a socket of %s, so say who may connect, such as -allow 127.0.0.1/32", network)
}

type listenFunc = func(ctx context.Context) (net.Listener, error)
