// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// Unix is one peer whose ports are unix sockets: port 6669 is the file 6669.sock
// under dir. Whoever listens on a port makes its file, guest or host, so both
// ends may use the same Unix peer, provided that they do not listen on the same
// port. That is what tests, a guest without a VM, and hypervisors need that map a
// vsock port to a socket of one's choice.
//
// There is a peer while dir exists; its ID is dir. Keep dir private (mode 0700):
// whoever may enter it is the peer. Sockets are made with mode 0600. A socket
// that nobody listens on any more is replaced, anything else is left alone.
func Unix(dir string) Source {
	return SourceFunc(func(context.Context) ([]Peer, error) {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			return nil, err
		case !info.IsDir():
			return nil, permanentError{fmt.Errorf("%s is not a directory: give the one that holds the sockets", dir)}
		}
		return []Peer{unixPeer(dir)}, nil
	})
}

type unixPeer string

func (p unixPeer) ID() string { return string(p) }

func (p unixPeer) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	path, err := p.path(port)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

func (p unixPeer) Listen(port uint32) (net.Listener, error) {
	path, err := p.path(port)
	if err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket && isStale(path) {
		_ = os.Remove(path) // if it cannot be, listening says so
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// path returns the socket of a port. A longer path than fits into sockaddr_un
// would only be an "invalid argument".
func (p unixPeer) path(port uint32) (string, error) {
	limit := 103 // BSD, macOS
	if runtime.GOOS == "linux" || runtime.GOOS == "windows" {
		limit = 107
	}
	path := filepath.Join(string(p), strconv.FormatUint(uint64(port), 10)+".sock")
	if len(path) > limit {
		return "", permanentError{fmt.Errorf("the path %s has %d bytes, a unix socket's at most %d: use a shorter directory", path, len(path), limit)}
	}
	return path, nil
}

// isStale reports whether nobody has the socket at path open any more. It asks
// with a datagram socket, which cannot connect to a stream socket: a listener
// that lives does not notice, and would else accept a peer that is none.
func isStale(path string) bool {
	network := "unixgram"
	if runtime.GOOS == "windows" { // has stream sockets only
		network = "unix"
	}
	conn, err := new(net.Dialer).DialContext(context.Background(), network, path)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, errRefused)
}
