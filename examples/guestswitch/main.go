// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command guestswitch puts a tap interface of this machine into the virtual
// network of its host, until it gets SIGINT or SIGTERM.
//
//	guestswitch -connect vsock://2:6656
//	guestswitch -connect unix:///run/host.sock -netns /run/netns/guest -dhcp exec:"udhcpc -f -i eth0"
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/rancher-sandbox/guestnet/guestswitch"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stderr))
}

// run returns the exit code: 0 for a clean end, 1 for a failure, 2 for a wrong
// command line.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	g, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "guestswitch:", err)
		return 2
	}
	if err := g.Run(ctx); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (*guestswitch.Guest, error) {
	g := &guestswitch.Guest{}
	level := slog.LevelWarn
	flags := flag.NewFlagSet("guestswitch", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error, once
	flags.Func("connect", "`address` of the host: unix:///p.sock, vsock://2:6656 or fd://3", func(s string) (err error) {
		g.Dial, err = dialer(s)
		return err
	})
	flags.StringVar(&g.Tap.Name, "iface", guestswitch.DefaultName, "`name` of the interface to create")
	flags.Func("mac", "its `address` (default 5a:94:ef:e4:0c:ee)", func(s string) (err error) {
		g.Tap.MAC, err = net.ParseMAC(s)
		return err
	})
	flags.StringVar(&g.Tap.NetNS, "netns", "", "`path` of the network namespace it is created in (default this one)")
	flags.IntVar(&g.Tap.MTU, "mtu", 0, "its MTU in `bytes` (default that of the lease)")
	flags.StringVar(&g.ResolvConf, "resolv-conf", "", "`path` of a file that gets the name servers, with -dhcp builtin (default none)")
	flags.Func("dhcp", "`who` configures it: builtin, none, exec:COMMAND or script:PATH (default builtin)", func(s string) (err error) {
		g.DHCP, err = configurer(s)
		return err
	})
	flags.BoolFunc("v", "print what happens", func(string) error { level = slog.LevelDebug; return nil })

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintln(stderr, "usage: guestswitch -connect ADDRESS [flags]")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%q is no flag; -help lists them", flags.Arg(0))
	case err == nil && g.Dial == nil:
		err = errors.New("-connect is missing: say where the host is, such as vsock://2:6656")
	}
	g.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	return g, err
}

func configurer(s string) (guestswitch.DHCP, error) {
	kind, arg, _ := strings.Cut(s, ":")
	switch {
	case s == "builtin":
		return guestswitch.BuiltinDHCP(), nil
	case s == "none":
		return guestswitch.NoDHCP(), nil
	case kind == "exec" && strings.TrimSpace(arg) != "":
		return guestswitch.ExecDHCP(strings.Fields(arg)...), nil
	case kind == "script" && arg != "":
		return guestswitch.ScriptDHCP(arg), nil
	}
	return nil, errors.New("use builtin, none, exec:COMMAND or script:PATH")
}
