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
	"os"
	"runtime"
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
	flags.StringVar(&o.discover, "discover", "", "`where` the VM is: "+vmflag.SourceForms)
	vmflag.Protocol(flags, &o.protocol, "what that VM speaks")
	flags.StringVar(&o.api, "api", "", "`where` the host's HTTP API is: "+service.LocalForms+" (none by default)")
	flags.StringVar(&o.capture, "capture", "", "a `file` for every frame, as pcapng")
	flags.IntVar(&o.config.MTU, "mtu", 0, "MTU of the network (1500)")
	flags.Func("subnet", "the network (192.168.127.0/24)", func(s string) (err error) {
		o.config.Subnet, err = subnet.ValidateSubnet(s)
		return err
	})
	flags.Func("forward", "`protocol:local=remote`, as in tcp:127.0.0.1:8080=192.168.127.2:80; may be repeated", func(s string) error {
		proto, rest, ok1 := strings.Cut(s, ":")
		local, remote, ok2 := strings.Cut(rest, "=")
		if !ok1 || !ok2 {
			return errors.New("write protocol:local=remote")
		}
		o.config.Forwards = append(o.config.Forwards, hostswitch.Forward{Protocol: proto, Local: local, Remote: remote})
		return nil
	})
	o.config.Logger = service.Logger(flags, stderr, "log more")
	err := service.Parse(flags, args, stderr, "-listen WHERE | -discover WHERE [flags]")
	if err != nil {
		return o, err
	}
	if (o.listen == "") == (o.discover == "") {
		return o, errors.New("write one of -listen and -discover, not both, as in -listen unix:/tmp/net.sock or -discover vsock:42")
	}
	if o.discover != "" {
		if o.source, err = vmflag.Source(o.discover, o.config.Logger); err != nil {
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

// serve is the whole life of the network: whatever is opened here is closed when
// it returns.
func serve(ctx context.Context, o options) (err error) {
	log := o.config.Logger
	sw, err := hostswitch.New(o.config)
	if err != nil {
		return err
	}
	defer sw.Close() //nolint:errcheck // it returns nil

	g, ctx := errgroup.WithContext(ctx)
	defer func() { err = errors.Join(err, g.Wait()) }()

	if o.source != nil {
		g.Go(func() error { return host(sw, o).Run(ctx) })
	} else {
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
	log.Info("ready", "listen", o.listen, "discover", o.discover, "api", o.api)
	<-ctx.Done()
	log.Info("closing", "snapshot", sw.Snapshot())
	return nil
}

// host finds the VM for a network, and keeps it.
func host(sw *hostswitch.Switch, o options) *hostswitch.Host {
	log := o.config.Logger
	return &hostswitch.Host{
		Switch:      sw,
		Discoverer:  &discovery.Discoverer{Source: o.source, Protocol: o.protocol, Logger: log},
		ReportEvery: 5 * time.Minute,
		Logger:      log,
		OnEvent: func(e hostswitch.Event) {
			log.Info("event", "kind", e.Kind, "peer", e.Peer, "error", e.Err)
		},
	}
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
