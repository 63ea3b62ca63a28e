// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"

	"github.com/rancher-sandbox/guestnet/discovery"
)

type listenFunc = func(ctx context.Context) (net.Listener, error)

// anyCID is VMADDR_CID_ANY (vsock(7)).
const anyCID = 0xffffffff

// handshaker returns how to listen for the host at an address of the command line.
func handshaker(address string) (listenFunc, error) {
	scheme, rest, _ := strings.Cut(address, "://")
	switch scheme {
	case "unix":
		if rest == "" {
			return nil, errors.New("unix:// needs a path, such as unix:///run/handshake.sock")
		}
		return func(ctx context.Context) (net.Listener, error) { return listenUnix(ctx, rest) }, nil
	case "vsock":
		port, err := strconv.ParseUint(strings.TrimPrefix(rest, ":"), 10, 32)
		if err != nil || !strings.HasPrefix(rest, ":") {
			return nil, errors.New("vsock:// needs a port, such as vsock://:6669")
		}
		return func(context.Context) (net.Listener, error) {
			ln, err := vsock.ListenContextID(anyCID, uint32(port), nil)
			if err != nil {
				return nil, err // not a nil *vsock.Listener in an interface
			}
			return ln, nil
		}, nil
	}
	return nil, errors.New("use vsock://:PORT or unix:///PATH")
}

// listenUnix listens for whoever may write to the file, which is its owner. A
// socket that nobody listens on was left by a run that crashed.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("another program listens on %s", path)
		}
		_ = os.Remove(path) // if it cannot be, listening says so
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// hostOnly lets the host say READY, and no one else: over vsock that is CID 2,
// since whatever runs inside this VM comes from another; a unix socket is guarded by
// the permissions of its file.
type hostOnly struct{}

func (hostOnly) Allow(c net.Conn) error {
	switch addr := c.RemoteAddr().(type) {
	case *vsock.Addr:
		if addr.ContextID == vsock.Host {
			return nil
		}
		return fmt.Errorf("CID %d is not the host", addr.ContextID)
	case *net.UnixAddr:
		return nil
	default:
		return fmt.Errorf("%T is not known as an address of the host", addr)
	}
}

// preset returns what is spoken, by its name on the command line.
func preset(name string) (discovery.Protocol, error) {
	switch name {
	case "rancher-desktop":
		return discovery.RancherDesktop, nil
	case "rancher-desktop-2":
		return discovery.RancherDesktop2, nil
	}
	return discovery.Protocol{}, errors.New("use rancher-desktop or rancher-desktop-2")
}
