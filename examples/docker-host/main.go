// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command docker-host runs on the host and has the guest's Docker where programs
// of the host look for it: a named pipe on Windows, a unix socket elsewhere. In the
// guest runs rdd-guest.
//
//	docker-host -guest hyperv:ac2d15b8-7d3a-4b8e-9c51-0f6f0b5a9f10        # Windows: \\.\pipe\docker_engine
//	docker-host -listen unix:/tmp/docker.sock -guest vsock:42             # a QEMU guest, on Linux
//	docker-host -listen unix:/tmp/docker.sock -discover vsock:3,42
//
// Only the user that it runs as may connect; on Windows administrators may, too.
//
// With -discover it asks the VMs for the signature of Rancher Desktop's guests, which
// a guest gives for as long as it waits for its network. So start it before the
// program that runs the network; a daemon that is both does not search twice, but
// bridges in hostswitch.Host.OnGuest, where it is told which VM it is.
//
// On SIGTERM, or Ctrl-C, it takes no more connections, and ends when those that it
// has have ended, or after -drain. A second one ends it at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func main() {
	os.Exit(run(service.UntilSignal(), os.Args[1:], os.Stderr))
}

// run returns the exit code: 0 for a clean end, 1 for a failure, 2 for a wrong
// command line.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "docker-host:", err)
		return 2
	}
	if err := serve(ctx, o); err != nil {
		_, _ = fmt.Fprintln(stderr, "docker-host:", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, o options) error {
	if o.finder != nil {
		service.Tell(ctx, o.bridge.Logger, service.Status("looking for the VM"))
		if err := o.finder.find(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	ln, err := o.open()
	if err != nil {
		return err
	}
	return service.Serve(ctx, o.bridge, ln, "waiting for clients; guest is "+o.guest)
}

type options struct {
	bridge *socketbridge.Bridge
	open   listenFunc
	finder *finder // nil without -discover
	guest  string  // as the status names it
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{bridge: &socketbridge.Bridge{}}
	var listen, guest, discover string
	var port uint
	protocol := discovery.RancherDesktop
	level := slog.LevelInfo
	flags := flag.NewFlagSet("docker-host", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error, once
	flags.StringVar(&listen, "listen", defaultListen, "`where` Docker's clients connect: "+listenForms)
	flags.StringVar(&guest, "guest", "", "`which` VM it is: "+guestForms+" (this or -discover is required)")
	flags.StringVar(&discover, "discover", "", "`where` the VM is among others: "+discoverForms)
	flags.Func("protocol", "`name` of what that VM speaks: rancher-desktop or rancher-desktop-2 (default rancher-desktop)", func(s string) (err error) {
		protocol, err = preset(s)
		return err
	})
	flags.UintVar(&port, "port", 6660, "vsock `port` of rdd-guest")
	service.Flags(flags, o.bridge)
	flags.BoolFunc("v", "log every connection", func(string) error { level = slog.LevelDebug; return nil })

	err := flags.Parse(args)
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	o.bridge.Logger = log
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintln(stderr, "usage: docker-host -listen ADDRESS -guest VM [flags]")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return o, err
	case err != nil:
		return o, err
	case flags.NArg() > 0:
		return o, fmt.Errorf("%q is no flag; -help lists them", flags.Arg(0))
	case port >= 1<<32-1:
		return o, fmt.Errorf("-port %d: a vsock port is less than 4294967295", port)
	case listen == "":
		return o, errors.New("-listen is missing: write where clients connect, such as unix:/tmp/docker.sock")
	case (guest == "") == (discover == ""):
		return o, errors.New("write one of -guest and -discover, not both, as in -guest vsock:42 or -discover hyperv")
	}
	if o.open, o.bridge.Filter, err = listener(listen); err != nil {
		return o, fmt.Errorf("-listen %s: %w", listen, err)
	}
	if o.guest = guest; guest != "" {
		if o.bridge.Dial, err = dialer(guest, uint32(port)); err != nil {
			err = fmt.Errorf("-guest %s: %w", guest, err)
		}
		return o, err
	}
	vms, err := source(discover, log)
	if err != nil {
		return o, fmt.Errorf("-discover %s: %w", discover, err)
	}
	o.guest = "found among " + discover
	o.finder = newFinder(&discovery.Discoverer{Source: vms, Protocol: protocol, Logger: log}, uint32(port))
	o.bridge.Dial = o.finder.dial
	return o, nil
}
