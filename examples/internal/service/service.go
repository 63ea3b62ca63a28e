// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package service is what the programs of examples/ need to be good services: a
// command line, exit codes and an end on signals; they tell the service manager how
// they fare, take the socket that it listens on for them, and drain when they are told
// to end.
package service

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// Flags adds to flags those that every bridge has. They set b.
func Flags(flags *flag.FlagSet, b *socketbridge.Bridge) {
	flags.Func("drain", "for this `duration` connections may go on after SIGTERM; -1s: until they end (default 10s)", func(s string) error {
		d, err := time.ParseDuration(s)
		if err == nil && d == 0 {
			d = time.Nanosecond // to a Bridge 0 is the default
		}
		b.DrainTimeout = d
		return err
	})
	flags.DurationVar(&b.IdleTimeout, "idle", 0, "the `duration` for which a connection may carry nothing before it is closed (default for ever)")
	flags.IntVar(&b.MaxConns, "max-conns", 0, "there may be `n` connections; more wait (default no bound)")
}

// Serve is b.Serve for a service: its manager learns that it is ready, and that it
// stops, for how many connections it waits. b.Logger has to be set.
func Serve(ctx context.Context, b *socketbridge.Bridge, ln net.Listener, status string) error {
	Tell(ctx, b.Logger, "READY=1\n"+Status(status))
	b.Logger.Info("ready", "listen", where(ln.Addr()), "status", status)
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		active := b.Stats().Active
		attrs := []any{"active", active}
		if active > 0 {
			attrs = append(attrs, "drain", drain(b), "hint", "again to end at once")
		}
		b.Logger.Info("stopping", attrs...) // and only then: whoever is told may end this at once
		Tell(ctx, b.Logger, "STOPPING=1\n"+Status(fmt.Sprintf("waiting for %d connections to end", active)))
	})
	err := b.Serve(ctx, ln)
	if ctx.Err() != nil || !stop() { // an end under way may not have come to the function yet
		<-told
	}
	b.Logger.Info("ended", "stats", b.Stats())
	return err
}

// drain is for how long b waits for connections to end.
func drain(b *socketbridge.Bridge) string {
	if b.DrainTimeout < 0 {
		return "until they end"
	}
	return cmp.Or(b.DrainTimeout, 10*time.Second).String()
}

// where is an address as a command line has it.
func where(addr net.Addr) string {
	text := addr.String()
	if addr.Network() == "vsock" { // "vm(4294967295):6660": any CID of this machine
		text = text[strings.LastIndexByte(text, ':')+1:]
	}
	return addr.Network() + ":" + text
}

// Tell is [Notify], also when ctx has ended. A manager that cannot be told is no
// reason to end, but one for a line in the log.
func Tell(ctx context.Context, log *slog.Logger, message string) {
	if err := Notify(context.WithoutCancel(ctx), message); err != nil {
		log.Warn("the service manager was not told", "error", err)
	}
}
