// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace that is entered for single calls: what was
// opened in there, a socket or a tap, stays in there. nil is the one of the
// calling goroutine.
type namespace struct{ handle netns.NsHandle }

func openNamespace(path string) (*namespace, error) {
	if path == "" {
		return nil, nil
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &namespace{h}, nil
}

func (n *namespace) close() {
	if n != nil {
		_ = n.handle.Close()
	}
}

// do calls f inside the namespace, on a thread that ends with the call if it
// cannot be brought back: a namespace belongs to a thread, and the runtime would
// hand that one to somebody else.
func (n *namespace) do(f func() error) error {
	if n == nil {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err == nil {
			defer func() { _ = home.Close() }()
			switch err = netns.Set(n.handle); {
			case err == nil:
				err = f()
				if netns.Set(home) != nil {
					done <- err
					return // still locked: the runtime ends the thread
				}
			case errors.Is(err, unix.EPERM):
				err = fmt.Errorf("%w: to enter its namespace takes CAP_SYS_ADMIN: run as root", err)
			}
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
