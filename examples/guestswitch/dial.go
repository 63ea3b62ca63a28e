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

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

type dialFunc = func(ctx context.Context) (net.Conn, error)

// dialer returns how to reach the host at an address of the command line.
func dialer(address string) (dialFunc, error) {
	scheme, rest := service.Address(address)
	switch scheme {
	case "unix":
		return service.DialUnix(rest)
	case "vsock":
		host, port, _ := strings.Cut(rest, ":")
		cid, err1 := strconv.ParseUint(host, 10, 32)
		p, err2 := strconv.ParseUint(port, 10, 32)
		if err1 != nil || err2 != nil {
			return nil, errors.New("write a CID and a port, as in vsock:2:6656")
		}
		return socketbridge.DialVsock(uint32(cid), uint32(p)), nil
	case "fd":
		fd, err := service.Descriptor(rest)
		return func(context.Context) (net.Conn, error) {
			return socketbridge.FileConn(os.NewFile(fd, "fd "+rest))
		}, err
	}
	return nil, errors.New("write unix:PATH, vsock:CID:PORT or fd:NUMBER")
}
