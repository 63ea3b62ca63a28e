// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// Address splits an address of a command line: unix:/path and unix:///path are
// the same.
func Address(s string) (scheme, rest string) {
	scheme, rest, _ = strings.Cut(s, ":")
	return scheme, strings.TrimPrefix(rest, "//")
}

// LocalForms is what [Local] takes.
const LocalForms = "unix:PATH, on Windows npipe:NAME"

// Local returns how to listen where only this user can connect. To chmod a unix socket
// does nothing on Windows: its folder says who may. An address that is neither of the
// two is told the forms that there are, and one of another system a name that would do.
func Local(system, address, name, forms string) (func() (net.Listener, error), error) {
	switch scheme, path := Address(address); {
	case scheme == "unix" && system == "windows":
		return nil, errors.New("on Windows whoever may enter the folder of a unix socket could connect: use a named pipe, as in npipe:" + name)
	case scheme == "npipe" && system != "windows":
		return nil, errors.New("named pipes need Windows: use a unix socket, as in unix:/tmp/" + name + ".sock")
	case scheme == "unix" && path != "":
		return func() (net.Listener, error) {
			return socketbridge.ListenUnix(path, socketbridge.UnixOptions{})
		}, nil
	case scheme == "npipe" && path != "":
		return func() (net.Listener, error) {
			return socketbridge.ListenPipe(path, socketbridge.PipeOptions{})
		}, nil
	}
	return nil, errors.New("write " + forms)
}

// ForHost returns how a guest listens for its host at an address of the command line.
// Who writes no port is told one.
func ForHost(address, port string) (func(context.Context) (net.Listener, error), error) {
	switch scheme, rest := Address(address); scheme {
	case "vsock":
		number, err := strconv.ParseUint(strings.TrimPrefix(rest, ":"), 10, 32)
		if err != nil {
			return nil, errors.New("write a port, as in vsock:" + port)
		}
		return func(context.Context) (net.Listener, error) { return socketbridge.ListenVsock(uint32(number)) }, nil
	case "unix":
		if rest == "" {
			return nil, errors.New("write a path, as in unix:/run/guest.sock")
		}
		return func(context.Context) (net.Listener, error) {
			return socketbridge.ListenUnix(rest, socketbridge.UnixOptions{})
		}, nil
	}
	return nil, errors.New("write vsock:PORT or unix:PATH")
}

// Host lets in who is the host to a guest that listens there: over vsock CID 2, since
// whatever runs inside the VM comes from another, and on a unix socket whoever runs
// this program. It is nil on other networks.
func Host(network string) socketbridge.PeerFilter {
	switch network {
	case "vsock":
		return socketbridge.AllowCID(2)
	case "unix":
		return socketbridge.AllowUID(uint32(os.Geteuid()))
	}
	return nil
}
