// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command hostswitch runs a virtual network, for guests that connect to it or for
// the VM that it finds: a whole host daemon.
//
//	hostswitch -listen unix:/tmp/net.sock -api unix:/tmp/api.sock
//	hostswitch -discover vsock:42
//	hostswitch -discover hyperv -api npipe:hostswitch
//
// With -discover it shakes hands with the VM, listens for that one only, and finds
// it again when it was lost. With -listen it takes the guests that are named, or
// those of this user: of who may connect to its sockets and pipes.
//
// What it logs as "ready" is that guests may connect or, with -discover, that the VM's
// frames come: each time that it was found.
//
// It ends on SIGINT or SIGTERM, with exit code 0. A second one ends it at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/vmflag"
	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/subnet"
)

func main() {
	os.Exit(run(service.UntilSignal(), os.Args[1:], os.Stderr))
}

func run(ctx context.Context, args []string, stderr io.Writer) int {
	return service.Run(ctx, "hostswitch", args, stderr, parse, serve)
}

type options struct {
	listen, discover, api, capture string
	guests                         func(context.Context) ([]net.Listener, error) // of listen
	source                         discovery.Source                              // of discover
	control                        func() (net.Listener, error)                  // of api
	protocol                       discovery.Protocol
	config                         hostswitch.Config
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("hostswitch", flag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", "", "`where` guests connect: "+guestForms+" (this or -discover is required)")
	flags.StringVar(&o.discover, "discover", "", "`where` to look for the VM: "+vmflag.SourceForms)
	vmflag.Protocol(flags, &o.protocol, "discover")
	flags.StringVar(&o.api, "api", "", "`where` the host's HTTP API is: "+service.LocalForms+" (none by default)")
	flags.StringVar(&o.capture, "capture", "", "a `file` for every frame, as pcapng")
	service.Number(flags, "mtu", &o.config.MTU, 576, 65521, "MTU of the network in `bytes` (default 1500)")
	flags.Func("subnet", "the network's `prefix` (default 192.168.127.0/24)", func(s string) (err error) {
		o.config.Subnet, err = subnet.ValidateSubnet(s)
		return err
	})
	flags.Func("forward", "`protocol:local=remote`, as in "+aForward+"; may be repeated", func(s string) error {
		f, err := forward(s)
		o.config.Forwards = append(o.config.Forwards, f)
		return err
	})
	o.config.Logger = service.Logger(flags, stderr, "log more")
	err := service.Parse(flags, args, stderr, "-listen WHERE | -discover WHERE [flags]")
	switch {
	case err != nil:
		return o, err
	case o.listen == "" && o.discover == "":
		return o, errors.New("-listen or -discover is missing: say where guests connect, as in -listen unix:/tmp/net.sock, or where the VM is, as in -discover vsock:42")
	case o.listen != "" && o.discover != "":
		return o, errors.New("-listen and -discover: write one of them, not both")
	}
	if err = service.Needs(flags, "protocol", "discover"); err != nil {
		return o, err
	}
	if o.discover != "" {
		if o.source, err = vmflag.Source(runtime.GOOS, o.discover, o.config.Logger); err != nil {
			return o, fmt.Errorf("-discover %s: %w", o.discover, err)
		}
	} else if o.guests, err = guests(runtime.GOOS, o.listen, o.config.Logger); err != nil {
		return o, fmt.Errorf("-listen %s: %w", o.listen, err)
	}
	if o.api != "" {
		if o.control, err = service.Local(runtime.GOOS, o.api, "hostswitch", service.LocalForms); err != nil {
			return o, fmt.Errorf("-api %s: %w", o.api, err)
		}
	}
	return o, nil
}

const aForward = "tcp:127.0.0.1:8080=192.168.127.2:80"

// forward reads one of the command line. What is left to the network is whether it has
// the address of the guest.
func forward(s string) (hostswitch.Forward, error) {
	proto, rest, _ := strings.Cut(s, ":")
	local, remote, ok := strings.Cut(rest, "=")
	if proto = strings.ToLower(proto); !ok || proto != "tcp" && proto != "udp" {
		return hostswitch.Forward{}, errors.New("write protocol:local=remote, as in " + aForward)
	}
	for _, at := range []string{local, remote} {
		host, port, err := net.SplitHostPort(at)
		_, portErr := strconv.ParseUint(port, 10, 16)
		if _, hostErr := netip.ParseAddr(host); err != nil || portErr != nil || hostErr != nil && host != "" && host != "localhost" {
			return hostswitch.Forward{}, fmt.Errorf("%q is not an address and a port, as in %s", at, aForward)
		}
	}
	return hostswitch.Forward{Protocol: proto, Local: local, Remote: remote}, nil
}

// serve is the whole life of the network: whatever is opened here is closed when
// it returns.
func serve(ctx context.Context, o options) (err error) {
	log := o.config.Logger
	sw, err := hostswitch.New(o.config)
	if f, ok := errors.AsType[*hostswitch.ForwardError](err); ok {
		return fmt.Errorf("-forward: %w", f)
	} else if err != nil {
		return err
	}
	defer sw.Close() //nolint:errcheck // it returns nil

	g, ctx := errgroup.WithContext(ctx)
	defer func() { err = errors.Join(err, g.Wait()) }()

	if o.source == nil {
		all, err := o.guests(ctx)
		if err != nil {
			return fail(g, err)
		}
		for _, ln := range all {
			g.Go(func() error { return sw.Serve(ctx, ln) })
		}
	}
	if o.control != nil {
		api, err := o.control()
		if err != nil {
			return fail(g, err)
		}
		g.Go(func() error { return serveHTTP(ctx, api, sw.Handler(), log) })
	}
	if o.capture != "" {
		file, err := os.OpenFile(o.capture, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // everybody's traffic
		if err != nil {
			return fail(g, err)
		}
		g.Go(func() error { return errors.Join(sw.Capture(ctx, file), file.Close()) })
	}
	if o.source == nil {
		log.Info("ready", "listen", o.listen, "api", o.api)
	} else {
		log.Info("waiting for the VM", "discover", o.discover, "reason", vmflag.Missing(o.discover), "api", o.api)
		g.Go(func() error { return find(ctx, sw, o) })
	}
	<-ctx.Done()
	log.Info("closing", "snapshot", sw.Snapshot())
	return nil
}

// find finds the VM for a network, and keeps it.
func find(ctx context.Context, sw *hostswitch.Switch, o options) error {
	log := o.config.Logger
	h := &hostswitch.Host{
		Switch:      sw,
		Discoverer:  &discovery.Discoverer{Source: o.source, Protocol: o.protocol, Logger: log},
		ReportEvery: 5 * time.Minute,
		Logger:      log,
	}
	return h.RunReporting(ctx, func(err error) {
		if err == nil { // else it has logged that
			log.Info("ready", "discover", o.discover, "api", o.api)
		}
	})
}

// fail ends what runs already.
func fail(g *errgroup.Group, err error) error {
	g.Go(func() error { return err })
	return nil
}

// serveHTTP serves until ctx ends, and then waits for requests under way.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends POST /connect
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(done)
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(bound)
	})
	err := server.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) {
		<-done
		return nil
	}
	return err
}
