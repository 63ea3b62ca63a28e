// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
)

// listen opens an address written as a URL.
func listen(ctx context.Context, address string) (net.Listener, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("hostswitch: %q: %w", address, err)
	}
	var lc net.ListenConfig
	switch u.Scheme {
	case "unix":
		// A socket file that nobody listens on was left by a run that crashed;
		// one with a listener is somebody else's.
		if c, err := new(net.Dialer).DialContext(ctx, "unix", u.Path); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("hostswitch: %s: another program listens there", address)
		} else if info, err := os.Lstat(u.Path); err == nil && info.Mode()&os.ModeSocket != 0 {
			_ = os.Remove(u.Path)
		}
		ln, err := lc.Listen(ctx, "unix", u.Path)
		if err != nil {
			return nil, err
		}
		// Whoever connects is on the network, or commands it: the owner only.
		if err := os.Chmod(u.Path, 0o600); err != nil {
			_ = ln.Close()
			return nil, err
		}
		return ln, nil
	case "vsock":
		port, err := strconv.ParseUint(u.Port(), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("hostswitch: %q: write a port, as in vsock://:6656", address)
		}
		return listenVsock(uint32(port))
	default:
		return nil, fmt.Errorf("hostswitch: %q: write unix:///path or vsock://:6656", address)
	}
}
