// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// defaultPort is where hosts look for this program.
const defaultPort = 6660

// listener returns how to listen at an address of the command line.
func listener(address string) (listenFunc, error) {
	if address == "" {
		return func(context.Context) (net.Listener, error) {
			if ln, err := service.Listener(); ln != nil || err != nil {
				return ln, err
			}
			return socketbridge.ListenVsock(defaultPort)
		}, nil
	}
	scheme, rest := service.Address(address)
	switch scheme {
	case "vsock", "unix":
		return service.ForHost(address, "6660")
	case "tcp":
		if !hostPort(rest) {
			return nil, errors.New("write an address and a port, as in tcp:127.0.0.1:2375")
		}
		return func(ctx context.Context) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", rest)
		}, nil
	case "fd":
		fd, err := service.Descriptor(rest)
		return func(context.Context) (net.Listener, error) {
			return socketbridge.FileListener(os.NewFile(fd, "fd "+rest))
		}, err
	}
	return nil, errors.New("write vsock:PORT, unix:PATH, tcp:ADDRESS:PORT or fd:NUMBER")
}

// dialer returns how to reach an address of the command line.
func dialer(address string) (func(context.Context) (net.Conn, error), error) {
	scheme, rest := service.Address(address)
	switch {
	case scheme == "unix" && rest != "":
		return service.DialUnix(rest)
	case scheme == "tcp" && hostPort(rest):
		return func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", rest)
		}, nil
	}
	return nil, errors.New("write unix:PATH, as in unix:/var/run/docker.sock, or tcp:ADDRESS:PORT")
}

func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && host != "" && port != ""
}

// A rule says who is let in.
type rule struct {
	network string // where there are such peers; empty: everywhere
	socketbridge.PeerFilter
}

// parseRule reads a rule of the command line.
func parseRule(s string) (rule, error) {
	kind, arg, _ := strings.Cut(s, ":")
	number, err := strconv.ParseUint(arg, 10, 32)
	switch {
	case s == "any":
		return rule{"", socketbridge.AllowAll()}, nil
	case kind == "cid" && err == nil:
		return rule{"vsock", socketbridge.AllowCID(uint32(number))}, nil
	case kind == "uid" && err == nil:
		return rule{"unix", socketbridge.AllowUID(uint32(number))}, nil
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		s = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()).String()
	}
	if prefix, err := netip.ParsePrefix(s); err == nil {
		return rule{"tcp", socketbridge.AllowPrefix(prefix)}, nil
	}
	return rule{}, errors.New("write cid:NUMBER, uid:NUMBER, an address or prefix such as 127.0.0.0/8, or any")
}
