// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

type listenFunc = func(ctx context.Context) (net.Listener, error)

// handshaker returns how to listen for the host at an address of the command line,
// and who is the host there: over vsock CID 2, since whatever runs inside this VM
// comes from another, and on a unix socket whoever runs this program.
func handshaker(address string) (listenFunc, socketbridge.PeerFilter, error) {
	scheme, rest := service.Address(address)
	switch scheme {
	case "unix":
		if rest == "" {
			return nil, nil, errors.New("write a path, as in unix:/run/handshake.sock")
		}
		return func(context.Context) (net.Listener, error) {
			return socketbridge.ListenUnix(rest, socketbridge.UnixOptions{})
		}, socketbridge.AllowUID(uint32(os.Geteuid())), nil
	case "vsock":
		port, err := strconv.ParseUint(strings.TrimPrefix(rest, ":"), 10, 32)
		if err != nil {
			return nil, nil, errors.New("write a port, as in vsock:6669")
		}
		return func(context.Context) (net.Listener, error) {
			return socketbridge.ListenVsock(uint32(port))
		}, socketbridge.AllowCID(2), nil
	}
	return nil, nil, errors.New("write vsock:PORT or unix:PATH")
}

// preset returns what is spoken, by its name on the command line.
func preset(name string) (discovery.Protocol, error) {
	switch name {
	case "rancher-desktop":
		return discovery.RancherDesktop, nil
	case "rancher-desktop-2":
		return discovery.RancherDesktop2, nil
	}
	return discovery.Protocol{}, errors.New("write rancher-desktop or rancher-desktop-2")
}
