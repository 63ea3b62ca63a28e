// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

type (
	listenFunc = func() (net.Listener, error)
	dialFunc   = func(ctx context.Context) (net.Conn, error)
)

const (
	guestForms    = "vsock:CID, hyperv:GUID or unix:DIRECTORY (with 6660.sock in it)"
	discoverForms = "vsock:CID[,CID…], unix:DIRECTORY (with 6669.sock in it) or hyperv"
)

// dialer returns how to reach the port of a VM of the command line.
func dialer(guest string, port uint32) (dialFunc, error) {
	kind, arg := service.Address(guest)
	if needs := map[string]string{"vsock": "linux", "hyperv": "windows"}[kind]; needs != "" && needs != runtime.GOOS {
		return nil, fmt.Errorf("%s on %s: %w", kind, runtime.GOOS, errors.ErrUnsupported) // not once for each connection
	}
	switch kind {
	case "vsock":
		cid, err := parseCID(arg)
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
			return socketbridge.DialUnix(filepath.Join(arg, strconv.FormatUint(uint64(port), 10)+".sock")), nil
		}
	}
	return nil, errors.New("write " + guestForms)
}

// source returns the VMs among which ours is, as the command line has them.
func source(s string, log *slog.Logger) (discovery.Source, error) {
	kind, arg := service.Address(s)
	switch {
	case s == "hyperv":
		return discovery.HyperV(), nil
	case kind == "unix" && arg != "":
		return discovery.Unix(arg), nil
	case kind == "vsock" && arg != "":
		vms := &discovery.CIDSource{Logger: log}
		for text := range strings.SplitSeq(arg, ",") {
			cid, err := parseCID(text)
			if err != nil {
				return nil, err
			}
			vms.CIDs = append(vms.CIDs, cid)
		}
		return vms, nil
	}
	return nil, errors.New("write " + discoverForms)
}

func parseCID(s string) (uint32, error) {
	cid, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a CID, as in vsock:42", s)
	}
	return uint32(cid), nil
}

// preset returns what the VM speaks, by its name on the command line.
func preset(name string) (discovery.Protocol, error) {
	switch name {
	case "rancher-desktop":
		return discovery.RancherDesktop, nil
	case "rancher-desktop-2":
		return discovery.RancherDesktop2, nil
	}
	return discovery.Protocol{}, errors.New("write rancher-desktop or rancher-desktop-2")
}
