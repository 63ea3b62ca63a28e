// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/vmflag"
)

// Whoever connects is on the network, or commands it: so every form says who may.
// That of a file or a pipe is this user.
const guestForms = "unix:PATH, on Linux vsock:CID[,CID…]:PORT, on Windows npipe:NAME or hyperv:GUID:PORT"

// guests returns how to listen for guests, as the command line of a system has it.
func guests(system, address string, log *slog.Logger) (func(context.Context) ([]net.Listener, error), error) {
	switch scheme, _ := service.Address(address); scheme {
	case "vsock", "hyperv":
		vms, port, err := vms(system, address, log)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) ([]net.Listener, error) { return listenFor(ctx, vms, port) }, nil
	}
	open, err := service.Local(system, address, "hostswitch", guestForms)
	if err != nil {
		return nil, err
	}
	return func(context.Context) ([]net.Listener, error) {
		ln, err := open()
		return []net.Listener{ln}, err
	}, nil
}

// vms returns the VMs that may connect, and to which port.
func vms(system, address string, log *slog.Logger) (discovery.Source, uint32, error) {
	scheme, rest := service.Address(address)
	switch {
	case scheme == "vsock" && system == "windows":
		return nil, 0, errors.New("VMs have no CIDs on Windows, and vsock would let all of them in: write -discover hyperv, which finds ours, or -listen hyperv:GUID:PORT")
	case scheme == "vsock" && system != "linux", scheme == "hyperv" && system != "windows":
		return nil, 0, fmt.Errorf("%s on %s: %w; write %s", scheme, system, errors.ErrUnsupported, guestForms)
	}
	colon := max(strings.LastIndexByte(rest, ':'), 0)
	whom := rest[:colon]
	port, err := strconv.ParseUint(strings.TrimPrefix(rest[colon:], ":"), 10, 32)
	if whom == "" || port == 0 || err != nil {
		return nil, 0, errors.New("say whom it is for, and a port, as in vsock:42:6656 or, on Windows, hyperv:1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11:6656")
	}
	if scheme == "vsock" {
		cids, err := vmflag.CIDs(whom)
		return &discovery.CIDSource{CIDs: cids, Logger: log}, uint32(port), err
	}
	vm, err := discovery.HyperVPeer(whom)
	return discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) {
		return []discovery.Peer{vm}, nil
	}), uint32(port), err
}

// listenFor listens for each of the VMs, and for no other.
func listenFor(ctx context.Context, vms discovery.Source, port uint32) (all []net.Listener, err error) {
	peers, err := vms.Peers(ctx)
	if err != nil {
		return nil, fmt.Errorf("hostswitch: %w", err)
	}
	for _, peer := range peers {
		ln, err := peer.Listen(port)
		if err != nil {
			for _, ln := range all {
				_ = ln.Close()
			}
			return nil, fmt.Errorf("hostswitch: listen for %s on port %d: %w", peer.ID(), port, err)
		}
		all = append(all, ln)
	}
	return all, nil
}
