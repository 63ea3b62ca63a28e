// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// Address splits an address of a command line: unix:/path and unix:///path are
// the same. In unix://path the path would be a URL's host, so that has none.
func Address(s string) (scheme, rest string) {
	scheme, rest, _ = strings.Cut(s, ":")
	rest, url := strings.CutPrefix(rest, "//")
	if url && scheme == "unix" && !strings.HasPrefix(rest, "/") && !filepath.IsAbs(rest) {
		rest = ""
	}
	return scheme, rest
}

// DialUnix returns how to dial a socket, which need not be there yet.
func DialUnix(path string) (func(context.Context) (net.Conn, error), error) {
	if path == "" {
		return nil, errors.New("write a path, as in unix:/run/host.sock")
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is no socket", path)
	}
	return socketbridge.DialUnix(path), nil
}

// WarnMissing tells that the socket of what is at an address is not there. To dial it
// would be a connection that its server sees.
func WarnMissing(log *slog.Logger, what, address, path string) {
	if _, err := os.Stat(path); err != nil {
		log.Warn("the "+what+" is not there yet: connections fail until it is", what, address, "error", err)
	}
}

// Descriptor reads the number of a socket that this process was started with. It has to
// be called before the program opens any of its own, which it would else take for that.
func Descriptor(number string) (uintptr, error) {
	fd, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return 0, errors.New("write the number of a socket that this process inherits, as in fd:3")
	}
	dir := "/dev/fd"
	if runtime.GOOS == "linux" {
		dir = "/proc/self/fd" // what the other leads to, where it is
	}
	if info, err := os.Stat(fmt.Sprintf("%s/%d", dir, fd)); err != nil || info.Mode().Type() != fs.ModeSocket {
		return 0, fmt.Errorf("fd %d is no socket that this process inherits: have whoever starts it pass one", fd)
	}
	return uintptr(fd), nil
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
