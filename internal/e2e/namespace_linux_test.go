// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"

	"github.com/rancher-sandbox/guestnet/internal/house"
)

// A namespace is a machine of one test, as far as its network goes. What runs in
// there through ip-netns(8) sees the files below etc in place of those in /etc.
type namespace struct {
	t      *testing.T
	name   string
	etc    string
	handle netns.NsHandle
}

func newNamespace(t *testing.T, role string) *namespace {
	t.Helper()
	n := &namespace{t: t, name: fmt.Sprintf("guestnet-%08x-%s", rand.Uint32(), role)}
	n.etc = filepath.Join("/etc/netns", n.name)
	if out, err := ip(t, "netns", "add", n.name); err != nil {
		house.Missing(t, "this root may not make network namespaces: run where CAP_SYS_ADMIN is granted: "+out)
	}
	t.Cleanup(func() {
		if out, err := ip(t, "netns", "del", n.name); err != nil {
			t.Errorf("ip netns del %s: %v: %s", n.name, err, out)
		}
	})
	var err error
	n.handle, err = netns.GetFromName(n.name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = n.handle.Close() })
	require.NoError(t, os.MkdirAll(n.etc, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(n.etc) })
	n.write("resolv.conf", "")
	n.run("ip", "link", "set", "lo", "up")
	return n
}

// ip runs ip(8) outside of the namespaces; also while the test ends.
func ip(t *testing.T, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	return string(out), err
}

// path is what -netns takes.
func (n *namespace) path() string { return "/run/netns/" + n.name }

// write makes a file below etc, or changes it in place: for a program that runs
// in the namespace it is a mount, which a new file would not reach.
func (n *namespace) write(file, content string) {
	n.t.Helper()
	require.NoError(n.t, os.WriteFile(filepath.Join(n.etc, file), []byte(content), 0o644))
}

// resolvConf is the path of the namespace's resolv.conf outside of it.
func (n *namespace) resolvConf() string { return filepath.Join(n.etc, "resolv.conf") }

// do calls f on a thread inside the namespace, which ends with the call.
func (n *namespace) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := netns.Set(n.handle)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// dial connects from the namespace to an IP address and a port.
func (n *namespace) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = n.do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// mustDial is dial for a connection that has to stand, and has to end in time.
func (n *namespace) mustDial(network, address string) net.Conn {
	n.t.Helper()
	conn, err := n.dial(n.t.Context(), network, address)
	require.NoError(n.t, err)
	require.NoError(n.t, conn.SetDeadline(time.Now().Add(patience)))
	n.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (n *namespace) listen(address string) (ln net.Listener) {
	n.t.Helper()
	// A listener that was closed there just now may still be open in a child that is
	// about to become another program.
	for deadline := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
		err := n.do(func() (err error) {
			ln, err = new(net.ListenConfig).Listen(n.t.Context(), "tcp4", address)
			return err
		})
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			require.NoError(n.t, err)
			return ln
		}
	}
}

func (n *namespace) listenPacket(address string) (pc net.PacketConn) {
	n.t.Helper()
	require.NoError(n.t, n.do(func() (err error) {
		pc, err = new(net.ListenConfig).ListenPacket(n.t.Context(), "udp4", address)
		return err
	}))
	return pc
}

// inside is the command line that runs args in the namespace.
func (n *namespace) inside(args ...string) []string {
	return append([]string{"ip", "netns", "exec", n.name}, args...)
}

// try runs a program in the namespace and returns what it prints.
func (n *namespace) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	args = n.inside(args...)
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return strings.TrimSpace(string(out)), err
}

// run is try for what has to succeed.
func (n *namespace) run(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	require.NoError(n.t, err, "%s: %s", strings.Join(args, " "), out)
	return out
}

// sysctl sets a parameter of the namespace's own.
func (n *namespace) sysctl(name, value string) {
	n.t.Helper()
	require.NoError(n.t, n.do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
	}))
}
