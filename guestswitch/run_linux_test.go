// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/guestswitch"
)

// A second agent must not take the connection of the first: the host is not even
// dialled.
func TestExistingInterfaceIsLeftAlone(t *testing.T) {
	ns := newNamespace(t)
	ns.ip("tuntap", "add", "eth0", "mode", "tap") // persistent, and nobody holds it
	before := ns.state()
	g := &guestswitch.Guest{Tap: guestswitch.Tap{NetNS: ns.path}, Dial: func(context.Context) (net.Conn, error) {
		t.Error("dialled")
		return nil, errors.New("dialled")
	}}
	err := g.Run(t.Context())
	require.ErrorIs(t, err, guestswitch.ErrTapExists)
	require.ErrorContains(t, err, "create eth0: an interface of that name exists, or another Guest runs there: set another Tap.Name or Tap.NetNS")
	require.Equal(t, before, ns.state())

	g.Tap.Name = "lo"
	require.ErrorIs(t, g.Run(t.Context()), guestswitch.ErrTapExists)
	require.Equal(t, before, ns.state())
}

// Who may create no interface learns that, and not of a name that is taken as well.
func TestMissingPrivilegeIsToldFirst(t *testing.T) {
	needRoot(t)
	errc := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: what the thread lacks ends with it
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			err = (&guestswitch.Guest{Dial: dialNobody, Tap: guestswitch.Tap{Name: "lo"}}).Run(t.Context())
		}
		errc <- err
	}()
	err := <-errc
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, "create lo: operation not permitted: a tap takes CAP_NET_ADMIN")
}

func TestNamespaceThatIsNotThere(t *testing.T) {
	needRoot(t)
	g := &guestswitch.Guest{
		Tap:  guestswitch.Tap{NetNS: filepath.Join(t.TempDir(), "gone")},
		Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("dialled") },
	}
	err := g.Run(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, g.Tap.NetNS)

	g.Tap.NetNS = "/proc/self/ns/uts" // a namespace, and no network
	require.ErrorContains(t, g.Run(t.Context()), "create eth0")
}

func TestDialThatFails(t *testing.T) {
	ns := newNamespace(t)
	refused := errors.New("refused")
	g := &guestswitch.Guest{
		Tap:  guestswitch.Tap{NetNS: ns.path},
		Dial: func(context.Context) (net.Conn, error) { return nil, refused },
	}
	err := g.Run(t.Context())
	require.ErrorIs(t, err, refused)
	require.ErrorContains(t, err, "guestswitch: dial the host: ")
	require.Equal(t, untouched, ns.state())
}

func TestOneRunAtATimeAndAgain(t *testing.T) {
	g := &guestswitch.Guest{DHCP: static()}
	r, conn := start(t, g)
	serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	require.ErrorIs(t, g.Run(t.Context()), guestswitch.ErrRunning)
	r.stop()

	r, conn = start(t, g)
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	h.answers()
	r.stop()
}

func TestReadyNeedsBothAFrameAndAnAddress(t *testing.T) {
	r, conn := start(t, &guestswitch.Guest{DHCP: static()})
	h := serve(t, conn, silent)
	r.wait(guestswitch.Configured)
	require.Empty(t, r.reports)
	h.answers()
	require.NoError(t, <-r.reports)
	r.stop()
	require.Empty(t, r.reports)
}

// In the namespace of its caller, which is the thread's.
func TestCallersNamespace(t *testing.T) {
	ns := newNamespace(t)
	near, far := socketPair(t)
	serve(t, far, leases(guestAddr, time.Hour))
	configured := make(chan struct{}, 1)
	g := &guestswitch.Guest{
		Dial: func(context.Context) (net.Conn, error) { return near, nil },
		OnEvent: func(e guestswitch.Event) {
			if e.Kind == guestswitch.Configured {
				configured <- struct{}{}
			}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-configured
		if len(ns.addrs()) != 1 {
			t.Error("no address")
		}
		cancel()
	}()
	ns.do(func() error { return g.Run(ctx) })
	require.Equal(t, untouched, ns.state())
}

// FAILURES 7: whatever step fails, nothing stays.
func TestFaultAtEachStepLeavesNothing(t *testing.T) {
	ns := newNamespace(t)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	injected := errors.New("injected")
	attempt := func(dhcp guestswitch.DHCP, fail string) (steps []string, err error) {
		near, far := net.Pipe()
		h := serve(t, far, leases(guestAddr, time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		g := &guestswitch.Guest{
			Tap: guestswitch.Tap{NetNS: ns.path}, DHCP: dhcp, ResolvConf: resolv,
			Dial: func(context.Context) (net.Conn, error) { return near, nil },
			OnEvent: func(e guestswitch.Event) {
				if e.Kind == guestswitch.Configured || e.Kind == guestswitch.Failed {
					cancel()
				}
				if e.Kind == guestswitch.Failed {
					require.ErrorIs(t, e.Err, injected)
					require.EqualError(t, e.Err, "guestswitch: DHCP: "+fail+": injected")
				}
			},
		}
		g.SetFault(func(step string) error {
			steps = append(steps, step)
			if step == fail {
				return injected
			}
			return nil
		})
		err = g.Run(ctx)
		_ = h.conn.Close()
		return steps, err
	}
	lease := guestswitch.Lease{Addr: guestAddr, Router: gateway, DNS: guestDNS}
	for name, c := range map[string]struct {
		dhcp  guestswitch.DHCP
		fatal int // so many steps end the run
		steps int
	}{
		"builtin": {nil, 7, 11},
		"static":  {guestswitch.StaticDHCP(lease), 11, 11},
		"exec":    {guestswitch.ExecDHCP("ip", "addr", "add", guestAddr.String(), "dev", "eth0"), 8, 8},
	} {
		t.Run(name, func(t *testing.T) {
			steps, err := attempt(c.dhcp, "")
			require.NoError(t, err)
			require.Len(t, steps, c.steps)
			before := descriptors(t)
			for i, step := range steps {
				_, err := attempt(c.dhcp, step)
				if i < c.fatal {
					require.ErrorIs(t, err, injected, step)
					require.EqualError(t, err, "guestswitch: "+step+": injected")
				} else {
					require.NoError(t, err, step)
				}
				require.Equal(t, untouched, ns.state(), step)
				require.NoFileExists(t, resolv)
			}
			require.Eventually(t, func() bool { return descriptors(t) <= before }, patience, 10*time.Millisecond)
		})
	}
}

// FAILURES 14, at the guest's end.
func TestFiftyRunsLeaveNothing(t *testing.T) {
	ns := newNamespace(t)
	g := &guestswitch.Guest{Tap: guestswitch.Tap{NetNS: ns.path}}
	once := func() {
		near, far := net.Pipe()
		h := serve(t, far, leases(guestAddr, time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		g.Dial = func(context.Context) (net.Conn, error) { return near, nil }
		g.OnEvent = func(e guestswitch.Event) {
			if e.Kind == guestswitch.Configured {
				cancel()
			}
		}
		require.NoError(t, g.Run(ctx))
		_ = h.conn.Close()
	}
	once()
	settled := func() (int, int) { return runtime.NumGoroutine(), descriptors(t) }
	goroutines, fds := settled()
	for range 50 {
		once()
	}
	require.Eventually(t, func() bool {
		g, f := settled()
		return g <= goroutines+1 && f <= fds // this function runs in one
	}, patience, 10*time.Millisecond, "before: %d goroutines, %d descriptors", goroutines, fds)
	require.Equal(t, untouched, ns.state())
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}
