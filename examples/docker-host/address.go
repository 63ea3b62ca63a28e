// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/vmflag"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

const (
	enginePipe = "npipe:////./pipe/docker_engine" // as in DOCKER_HOST
	guestForms = "vsock:CID, hyperv:GUID or unix:DIRECTORY (with 6660.sock in it)"
)

type dialFunc = func(ctx context.Context) (net.Conn, error)

// dialer returns how to reach the port of a VM of the command line.
func dialer(guest string, port uint32, log *slog.Logger) (dialFunc, error) {
	kind, arg := service.Address(guest)
	if err := vmflag.Supported(runtime.GOOS, kind); err != nil {
		return nil, err // not once for each connection
	}
	switch kind {
	case "vsock":
		cid, err := vmflag.CID(arg)
		if err != nil {
			return nil, err
		}
		return socketbridge.DialVsock(cid, port), nil
	case "hyperv":
		vm, err := discovery.HyperVPeer(arg)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) (net.Conn, error) { return vm.Dial(ctx, port) }, nil
	case "unix":
		if arg != "" {
			path := filepath.Join(arg, strconv.FormatUint(uint64(port), 10)+".sock")
			service.WarnMissing(log, "guest", guest, path)
			return socketbridge.DialUnix(path), nil
		}
	}
	return nil, errors.New("write " + guestForms)
}
