// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
)

// newNamespace returns the path of a network namespace that ends with the test.
func newNamespace(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		const remedy = "needs network namespaces and /dev/net/tun: run the tests as root"
		if os.Getenv("CI") == "true" {
			t.Fatal(remedy)
		}
		t.Skip(remedy)
	}
	var ns netns.NsHandle
	errc := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		var err error
		ns, err = netns.New()
		errc <- err
	}()
	require.NoError(t, <-errc)
	t.Cleanup(func() { _ = ns.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", int(ns))
}

// The program carries frames, and ends with 0 when it is told to end, with 1 when
// the host goes away.
func TestRun(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "host.sock")
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	for name, end := range map[string]func(cancel func(), host net.Conn) (code int, says string){
		"told to end":  func(cancel func(), _ net.Conn) (int, string) { cancel(); return 0, "" },
		"host is gone": func(_ func(), host net.Conn) (int, string) { _ = host.Close(); return 1, "the host closed" },
	} {
		for _, fd := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, inherited %v", name, fd), func(t *testing.T) {
				address := "unix:" + socket
				if fd {
					address = fmt.Sprintf("fd:%d", dup(t, socket))
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var stderr bytes.Buffer
				args := []string{"-connect", address, "-netns", newNamespace(t), "-iface", "tap9", "-mac", "02:00:00:00:00:09"}
				code := make(chan int, 1)
				go func() { code <- run(ctx, args, &stderr) }()
				host, err := ln.Accept()
				require.NoError(t, err)
				defer func() { _ = host.Close() }()
				frame := make([]byte, 2+14)
				_, err = io.ReadFull(host, frame)
				require.NoError(t, err)
				require.Equal(t, []byte{2, 0, 0, 0, 0, 9}, frame[8:14])
				want, says := end(cancel, host)
				require.Equal(t, want, <-code, &stderr)
				require.Contains(t, stderr.String(), says)
			})
		}
	}
}

// dup returns a descriptor of a new connection, as a parent would leave it.
func dup(t *testing.T, socket string) int {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", socket)
	require.NoError(t, err)
	f, err := c.(*net.UnixConn).File()
	require.NoError(t, err)
	fd, err := unix.Dup(int(f.Fd()))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, c.Close())
	return fd
}

// A descriptor is one connection, and what it is not is said before another is opened.
func TestDescriptors(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(pair[0]) //nolint:errcheck // the end
	defer unix.Close(pair[1]) //nolint:errcheck // the end
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // the end
	fd := fmt.Sprint("fd:", pair[0])
	_, err = parse([]string{"-connect", fd}, io.Discard)
	require.NoError(t, err)
	servicetest.Mistakes(t, "guestswitch", run, map[string]servicetest.Mistake{
		"with handshake": {[]string{"-connect", fd, "-handshake", "vsock://:6669"}, "used up"},
		"with restart":   {[]string{"-connect", fd, "-restart"}, "used up"},
		"no socket":      {[]string{"-connect", fmt.Sprint("fd:", file.Fd())}, "is no socket that this process inherits"},
	})
}

// A service manager is told when the network is up, when it is not, and when the
// program ends. The host is found anew when it has gone away.
func TestHandshakeRestartAndServiceManager(t *testing.T) {
	dir := servicetest.Dir(t)
	told := servicetest.Manager(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	args := []string{
		"-handshake", "unix://" + filepath.Join(dir, "6670.sock"), "-connect", "unix://" + filepath.Join(dir, "6657.sock"),
		"-protocol", "rancher-desktop-2", "-netns", newNamespace(t), "-dhcp", "none",
	}
	go func() { code <- run(ctx, args, &stderr) }()
	d := &discovery.Discoverer{Source: discovery.Unix(dir), Protocol: discovery.RancherDesktop2, Interval: 10 * time.Millisecond}
	for restart := range 3 {
		require.Equal(t, "STATUS=waiting for the host", told())
		p, err := d.Discover(ctx)
		require.NoError(t, err)
		ln, err := p.Listen(d.Protocol.DataPort)
		require.NoError(t, err)
		require.NoError(t, d.SignalReady(ctx, p))
		host, err := ln.Accept()
		require.NoError(t, err)
		require.NoError(t, ln.Close())
		frame := append([]byte{14, 0, 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1}, 0x88, 0xb6)
		_, err = host.Write(frame)
		require.NoError(t, err)
		require.Equal(t, "READY=1\nSTATUS=the network is up", told())
		if restart == 2 {
			defer host.Close() //nolint:errcheck // the end
			break
		}
		require.NoError(t, host.Close())
		require.Contains(t, told(), "STATUS=trying again: guestswitch: the host closed the data connection")
	}
	cancel()
	require.Equal(t, "STOPPING=1\nSTATUS=stopping", told())
	require.Equal(t, 0, <-code, &stderr)
	require.Equal(t, 6, strings.Count(stderr.String(), "level=INFO"), "twice a run: %s", &stderr)
	require.Equal(t, 3, strings.Count(stderr.String(), `msg="waiting for the host's handshake" on=unix://`+dir), &stderr)
	require.Equal(t, 3, strings.Count(stderr.String(), "level=INFO msg=ready iface=eth0"), &stderr)
}

// What no restart mends ends the program, with or without -restart.
func ends(t *testing.T, args ...string) (stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	require.Equal(t, 1, run(ctx, append(args, "-connect", "unix:/nowhere"), &out), &out)
	return out.String()
}

func TestNoSuchName(t *testing.T) {
	stderr := ends(t, "-restart", "-iface", "a/b")
	require.Equal(t, 1, strings.Count(stderr, "\n"), "told once: %s", stderr)
	require.Contains(t, stderr, "Tap.Name")
}

// The library's names of what to change are followed by the flags.
func TestInterfaceThatExists(t *testing.T) {
	for _, restart := range []string{"-restart=false", "-restart"} {
		require.Equal(t, "guestswitch: create lo: an interface of that name exists, or another Guest runs there: "+
			"set another Tap.Name or Tap.NetNS (-iface, -netns)\n", ends(t, restart, "-netns", newNamespace(t), "-iface", "lo"))
	}
}

// Who may create no interface learns what that takes.
func TestMissingPrivilege(t *testing.T) {
	newNamespace(t) // or says what is needed
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-restart", "-connect", "unix:/nowhere")
	cmd.Env = []string{"GUESTSWITCH=run", "GORACE=atexit_sleep_ms=0"}
	var out []byte
	errc := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: what the thread lacks, and its child, ends with it
		err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_ADMIN, 0, 0, 0)
		if err == nil {
			out, err = cmd.CombinedOutput()
		}
		errc <- err
	}()
	require.EqualError(t, <-errc, "exit status 1", "%s", out)
	require.Equal(t, "guestswitch: create eth0: operation not permitted: a tap takes CAP_NET_ADMIN: run as root\n", string(out))
}

// A process that somebody else started says where the tap belongs.
func TestNamespaceOfAProcess(t *testing.T) {
	newNamespace(t) // or says what is needed
	sleep := exec.CommandContext(t.Context(), "sleep", "60")
	sleep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	require.NoError(t, sleep.Start())
	t.Cleanup(func() { _ = sleep.Process.Kill(); _ = sleep.Wait() })

	socket := filepath.Join(t.TempDir(), "host.sock")
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	defer ln.Close() //nolint:errcheck // the end
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-connect", "unix://" + socket, "-netns", strconv.Itoa(sleep.Process.Pid), "-iface", "tap9"}, &stderr)
	}()
	host, err := ln.Accept()
	require.NoError(t, err)
	defer host.Close() //nolint:errcheck // the end
	_, err = io.ReadFull(host, make([]byte, 2+14))
	require.NoError(t, err)
	links, err := exec.CommandContext(t.Context(), "nsenter", "-n", "-t", strconv.Itoa(sleep.Process.Pid), "cat", "/proc/net/dev").Output()
	require.NoError(t, err)
	require.Contains(t, string(links), "tap9:")
	cancel()
	require.Equal(t, 0, <-code, &stderr)
}
