// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package main

import (
	"errors"
	"net"
	"os"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

const (
	defaultListen = ""
	listenForms   = "unix:PATH (required)"
)

// listener returns how to listen at an address of the command line, and who may
// connect there.
func listener(address string) (listenFunc, socketbridge.PeerFilter, error) {
	scheme, path := service.Address(address)
	if scheme != "unix" || path == "" {
		return nil, nil, errors.New("write a unix socket, as in unix:/tmp/docker.sock")
	}
	return func() (net.Listener, error) {
		return socketbridge.ListenUnix(path, socketbridge.UnixOptions{})
	}, socketbridge.AllowUID(uint32(os.Geteuid())), nil
}
