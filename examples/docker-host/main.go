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
	"net"
	"os"
	"runtime"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/vmflag"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func main() {
	os.Exit(run(service.UntilSignal(), os.Args[1:], os.Stderr))
}

func run(ctx context.Context, args []string, stderr io.Writer) int {
	return service.Run(ctx, "docker-host", args, stderr, parse, serve)
}

func serve(ctx context.Context, o options) error {
	if o.finder != nil {
		service.Tell(ctx, o.bridge.Logger, service.Status("looking for the VM"))
		o.bridge.Logger.Info("waiting for the VM", "discover", o.discover, "reason", vmflag.Missing(o.discover))
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
	bridge   *socketbridge.Bridge
	open     func() (net.Listener, error)
	discover string
	finder   *finder // nil without -discover
	guest    string  // as the status names it
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{bridge: &socketbridge.Bridge{}}
	var listen, guest string
	if runtime.GOOS == "windows" {
		listen = enginePipe
	}
	port := uint32(6660)
	var protocol discovery.Protocol
	flags := flag.NewFlagSet("docker-host", flag.ContinueOnError)
	flags.StringVar(&listen, "listen", listen, "`where` Docker's clients connect: unix:PATH (required), on Windows npipe:NAME")
	flags.StringVar(&guest, "guest", "", "`which` VM has Docker: "+guestForms+" (this or -discover is required)")
	flags.StringVar(&o.discover, "discover", "", "`where` to look for the VM that has Docker: "+vmflag.SourceForms)
	vmflag.Protocol(flags, &protocol, "discover")
	service.Number(flags, "port", &port, 1, 1<<32-2, "vsock `port` of rdd-guest (default 6660)")
	service.Flags(flags, o.bridge)
	log := service.Logger(flags, stderr, "log every connection")
	o.bridge.Logger = log

	err := service.Parse(flags, args, stderr, "-listen ADDRESS (-guest VM | -discover WHERE) [flags]")
	switch {
	case err != nil:
		return o, err
	case listen == "":
		return o, errors.New("-listen is missing: write where clients connect, such as unix:/tmp/docker.sock")
	case guest == "" && o.discover == "":
		return o, errors.New("-guest or -discover is missing: say which VM has Docker, as in -guest vsock:42 or -discover hyperv")
	case guest != "" && o.discover != "":
		return o, errors.New("-guest and -discover: write one of them, not both")
	}
	if err = service.Needs(flags, "protocol", "discover"); err != nil {
		return o, err
	}
	if o.open, err = service.Local(runtime.GOOS, listen, "docker", service.LocalForms); err != nil {
		return o, fmt.Errorf("-listen %s: %w", listen, err)
	}
	o.bridge.Filter = socketbridge.AllowAll() // a pipe has a security descriptor
	if runtime.GOOS != "windows" {
		o.bridge.Filter = socketbridge.AllowUID(uint32(os.Geteuid()))
	}
	if o.guest = guest; guest != "" {
		if o.bridge.Dial, err = dialer(guest, port, log); err != nil {
			err = fmt.Errorf("-guest %s: %w", guest, err)
		}
		return o, err
	}
	vms, err := vmflag.Source(runtime.GOOS, o.discover, log)
	if err != nil {
		return o, fmt.Errorf("-discover %s: %w", o.discover, err)
	}
	o.guest = "found among " + o.discover
	o.finder = newFinder(&discovery.Discoverer{Source: vms, Protocol: protocol, Logger: log}, port)
	o.bridge.Dial = o.finder.dial
	return o, nil
}
