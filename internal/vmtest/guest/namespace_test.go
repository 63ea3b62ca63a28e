// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

package guest_test

import (
	"context"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
)

// A namespace is a network namespace, apart from that of the vsock.
type namespace struct {
	t    *testing.T
	file *os.File
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{t: t}
	require.NoError(t, onOwnThread(func() error {
		fd, err := netns.New()
		n.file = os.NewFile(uintptr(fd), "namespace")
		return err
	}))
	t.Cleanup(func() { _ = n.file.Close() })
	return n
}

// onOwnThread calls f on a thread that ends with the call.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

func (n *namespace) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = onOwnThread(func() error {
		if err := netns.Set(netns.NsHandle(n.file.Fd())); err != nil {
			return err
		}
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

func (n *namespace) listen(address string) (ln *net.TCPListener) {
	n.t.Helper()
	require.NoError(n.t, onOwnThread(func() error {
		if err := netns.Set(netns.NsHandle(n.file.Fd())); err != nil {
			return err
		}
		got, err := new(net.ListenConfig).Listen(n.t.Context(), "tcp4", address)
		if err == nil {
			ln = got.(*net.TCPListener)
		}
		return err
	}))
	n.t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// lookup asks the network's gateway for the addresses of a name.
func (n *namespace) lookup(ctx context.Context, name string) ([]string, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return n.dial(ctx, network, "192.168.127.1:53")
	}}
	return r.LookupHost(ctx, name)
}
