// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

// load is what iperf3 does not measure, in a process of its own because it is in
// another namespace: "echo ADDRESS" answers, "trips ADDRESS N" and "connections
// ADDRESS N" print what they have measured, as JSON.
func load(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 2 && args[0] == "echo" {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", args[1])
		if err != nil {
			return err
		}
		return echo(ctx, ln)
	}
	if len(args) != 3 {
		return errors.New("load: echo ADDRESS, trips ADDRESS N or connections ADDRESS N")
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := await(ctx, "the echo of "+args[1], func() bool { return ping(ctx, args[1], 1, nil) == nil }); err != nil {
		return err
	}
	figures := map[string]float64{}
	switch args[0] {
	case "trips":
		// Threads that look for work would take it from those that are measured.
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		var times []float64
		err = ping(ctx, args[1], n, func(d time.Duration) { times = append(times, float64(d.Nanoseconds())/1e3) })
		if err == nil {
			figures["p50"], figures["p99"] = sidebyside.Percentile(times, 50), sidebyside.Percentile(times, 99)
		}
	case "connections":
		figures["rate"], err = connections(ctx, args[1], n)
	default:
		err = fmt.Errorf("load: what is %q?", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(figures)
}

// echo sends every byte back until ctx ends, which ends its connections too.
func echo(ctx context.Context, ln net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return ln.Close()
	})
	g.Go(func() error {
		for {
			conn, err := ln.Accept()
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			g.Go(func() error {
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				_, _ = io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}, make([]byte, 64)) // the client tells what went wrong
				_ = conn.Close()
				return nil
			})
		}
	})
	return g.Wait()
}

// ping makes one connection, sends n bytes, each when the one before is back, and
// tells how long each took.
func ping(ctx context.Context, address string, n int, took func(time.Duration)) error {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // everything has come
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	b := []byte{'x'}
	for range n {
		begin := time.Now()
		if _, err := conn.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return err
		}
		if took != nil {
			took(time.Since(begin))
		}
	}
	return nil
}

// connections returns how many connections with one round trip four clients get
// through in a second.
func connections(ctx context.Context, address string, n int) (float64, error) {
	var left atomic.Int64
	left.Store(int64(n))
	g, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for range 4 {
		g.Go(func() error {
			for left.Add(-1) >= 0 {
				if err := ping(ctx, address, 1, nil); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return float64(n) / time.Since(begin).Seconds(), err
}
