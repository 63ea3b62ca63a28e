// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

const (
	defaultListen = "npipe:////./pipe/docker_engine" // as in DOCKER_HOST
	listenForms   = "npipe:NAME"
)

// listener returns how to listen at an address of the command line, and who may
// connect there. The pipe has a security descriptor that says it.
func listener(address string) (listenFunc, socketbridge.PeerFilter, error) {
	scheme, name := service.Address(address)
	if scheme != "npipe" || name == "" {
		return nil, nil, errors.New("write a named pipe, as in " + defaultListen)
	}
	return func() (net.Listener, error) {
		return socketbridge.ListenPipe(name, socketbridge.PipeOptions{})
	}, socketbridge.AllowAll(), nil
}
