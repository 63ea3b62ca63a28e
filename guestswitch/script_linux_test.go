// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/guestswitch"
)

// everything is an answer with each option that a script can be told by name,
// and one that it cannot.
func everything() []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithServerIP(gateway.AsSlice()),
		func(m *dhcpv4.DHCPv4) { m.BootFileName, m.ServerHostName = "pxelinux.0", "boot.lan" },
		dhcpv4.WithDNS(net.IP{192, 168, 127, 1}, net.IP{192, 168, 127, 254}),
		dhcpv4.WithDomainSearchList("rancher-desktop.internal", "docker.internal"),
		option(2, 0xff, 0xff, 0xf1, 0xf0), option(4, 10, 0, 0, 1), option(12, []byte("guest")...),
		option(13, 1, 2), option(15, []byte("rancher-desktop.internal")...), option(17, []byte("/nfs")...),
		option(23, 64), option(26, 0x0f, 0x92), option(28, 192, 168, 127, 255),
		option(33, 10, 1, 0, 0, 192, 168, 127, 1), option(42, 10, 0, 0, 2, 10, 0, 0, 3),
		option(40, []byte("nis")...), option(41, 10, 0, 0, 5), option(44, 10, 0, 0, 4), option(56, []byte("hello")...), option(66, []byte("tftp.lan")...),
		option(67, []byte("file")...), option(121, 16, 10, 2, 192, 168, 127, 1, 0, 192, 168, 127, 1),
		option(132, 0, 7), option(252, []byte("http://wpad/wpad.dat")...), option(234, 0xde, 0xad),
	}
}

// script writes a program that keeps its environment, one file per call, and then
// does what body says.
func script(t *testing.T, body string) (path, log string) {
	t.Helper()
	log = t.TempDir()
	path = filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\nn=$(ls "+log+" | grep -vc tmp)\n"+
		"env >"+log+"/tmp.$$ && mv "+log+"/tmp.$$ "+log+"/$n.$1\n"+body+"\n"), 0o755))
	return path, log
}

// calls returns the arguments that the script was called with, in order.
func calls(t *testing.T, log string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(log)
	require.NoError(t, err)
	for _, e := range list {
		if _, name, _ := strings.Cut(e.Name(), "."); !strings.HasPrefix(e.Name(), "tmp") {
			names = append(names, name)
		}
	}
	return names
}

// environment returns what a call had in its environment and this process not.
func environment(t *testing.T, log, call string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(log, call))
	require.NoError(t, err)
	env := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if _, ours := os.LookupEnv(name); !ours && name != "_" && name != "PWD" && name != "OLDPWD" && name != "SHLVL" {
			env[name] = value
		}
	}
	return env
}

func needProgram(t *testing.T, name string) string {
	t.Helper()
	needRoot(t)
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name
		}
	}
	remedy := name + " is not there: install it (apt-get install " + name + ")"
	if os.Getenv("CI") == "true" {
		t.Fatal(remedy)
	}
	t.Skip(remedy)
	return ""
}

// Our client has a script see the same as udhcpc does, for the same answers.
func TestScriptIsCalledAsUdhcpcCallsIt(t *testing.T) {
	udhcpc := needProgram(t, "udhcpc")
	path, log := script(t, `[ "$1" != bound ] || ip addr add $ip/$mask dev $interface`)
	r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ScriptDHCP(path)})
	h := serve(t, conn, leases(guestAddr, 2*time.Second, everything()...))
	r.wait(guestswitch.Configured)
	require.Equal(t, []string{guestAddr.String()}, r.ns.addrs())
	require.Equal(t, 3986, r.ns.link("eth0").MTU)
	r.wait(guestswitch.Renewed)
	h.change(func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			return reply(m, dhcpv4.MessageTypeNak, option(56, []byte("go away")...))
		}
		return nil
	})
	r.wait(guestswitch.LeaseLost)
	r.stop()
	require.Equal(t, []string{"deconfig", "bound", "renew", "nak", "deconfig", "deconfig"}, calls(t, log))

	path, udhcpcLog := script(t, `[ "$1" != bound ] || ip addr add $ip/$mask dev $interface`)
	r, conn = start(t, &guestswitch.Guest{
		Tap:  guestswitch.Tap{MTU: 3986},
		DHCP: guestswitch.ExecDHCP(udhcpc, "-f", "-i", "eth0", "-s", path, "-t", "1", "-T", "1", "-A", "1"),
	})
	h = serve(t, conn, leases(guestAddr, 20*time.Second, everything()...)) // udhcpc makes 10 s of less
	require.Equal(t, guestAddr, r.wait(guestswitch.Configured).Lease.Addr)
	require.Eventually(t, func() bool { return len(calls(t, udhcpcLog)) == 2 }, patience, time.Millisecond)
	_ = h
	r.stop()

	for call, udhcpcCall := range map[string]string{"0.deconfig": "0.deconfig", "1.bound": "1.bound"} {
		want, got := environment(t, udhcpcLog, udhcpcCall), environment(t, log, call)
		if want["lease"] != "" {
			want["lease"] = "2"
		}
		delete(want, "opt61") // the client identifier, which we do not send
		require.Equal(t, want, got, call)
		require.Equal(t, "eth0", got["interface"])
	}
	require.Equal(t, "go away", environment(t, log, "3.nak")["message"])
}

func TestScriptThatFailsIsNoReasonToGiveUp(t *testing.T) {
	path, _ := script(t, "exit 1")
	r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ScriptDHCP(path)})
	serve(t, conn, leases(guestAddr, time.Hour))
	r.wait(guestswitch.Configured)
	r.stop()
}

func TestScriptThatIsNotThereIsReported(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "none")
	r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ScriptDHCP(path)})
	serve(t, conn, leases(guestAddr, time.Hour))
	failed := r.wait(guestswitch.Failed)
	require.ErrorIs(t, failed.Err, os.ErrNotExist)
	require.Equal(t, failed.Err, <-r.reports)
	r.stop()
}

// alive reports whether the process whose number is in the file lives.
func alive(t *testing.T, pidFile string) bool {
	t.Helper()
	b, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestCancelKillsTheScriptAndItsChildren(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	path, log := script(t, `[ "$1" != bound ] || { sleep 1000 & echo $! >`+pid+`.tmp; mv `+pid+`.tmp `+pid+`; wait; }`)
	r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ScriptDHCP(path)})
	serve(t, conn, leases(guestAddr, time.Hour))
	require.Eventually(t, func() bool { _, err := os.Stat(pid); return err == nil }, patience, time.Millisecond)
	r.stop()
	require.False(t, alive(t, pid))
	require.Equal(t, []string{"deconfig", "bound", "deconfig"}, calls(t, log))
}

func TestExternalClient(t *testing.T) {
	udhcpc := needProgram(t, "udhcpc")
	path, log := script(t, `case $1 in
bound) ip addr add $ip/$mask dev $interface && ip route add default via $router;;
deconfig) ip addr flush dev $interface;;
esac`)
	t.Run("in the foreground", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ExecDHCP(udhcpc, "-f", "-R", "-i", "eth0", "-s", path)})
		h := serve(t, conn, leases(guestAddr, time.Hour))
		require.Equal(t, guestAddr, r.wait(guestswitch.Configured).Lease.Addr)
		h.answers()
		require.NoError(t, <-r.reports)
		r.stop()
		h.waitAsked(dhcpv4.MessageTypeRelease) // there was time for it
		require.Contains(t, calls(t, log), "deconfig")
	})
	t.Run("that exits when it is bound", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ExecDHCP(udhcpc, "-q", "-f", "-i", "eth0", "-s", path)})
		serve(t, conn, leases(guestAddr, time.Hour))
		r.wait(guestswitch.Exited)
		require.Equal(t, []string{guestAddr.String()}, r.ns.addrs())
		r.stop()
	})
	t.Run("that fails is started again", func(t *testing.T) {
		marker := filepath.Join(t.TempDir(), "marker")
		r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ExecDHCP("sh", "-c",
			"test -e "+marker+" && exit 0; touch "+marker+"; echo no luck; exit 3")})
		serve(t, conn, silent)
		failed := r.wait(guestswitch.Failed)
		require.ErrorContains(t, failed.Err, "exit status 3")
		require.ErrorContains(t, failed.Err, "no luck")
		require.Equal(t, failed.Err, <-r.reports)
		r.wait(guestswitch.Exited)
		r.stop()
	})
	t.Run("that is not there", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ExecDHCP("/nowhere/client")})
		serve(t, conn, silent)
		require.ErrorIs(t, r.wait(guestswitch.Failed).Err, os.ErrNotExist)
		r.stop()
	})
	t.Run("that ignores SIGTERM is killed, its children too", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ExecDHCP("sh", "-c",
			"trap '' TERM; sleep 1000 & echo $! >"+pid+".tmp; mv "+pid+".tmp "+pid+"; while :; do wait; done")})
		serve(t, conn, silent)
		require.Eventually(t, func() bool { _, err := os.Stat(pid); return err == nil }, patience, time.Millisecond)
		r.stop()
		require.False(t, alive(t, pid))
	})
	t.Run("that loses the address", func(t *testing.T) {
		r, conn := start(t, &guestswitch.Guest{DHCP: guestswitch.ExecDHCP("sleep", "1000")})
		serve(t, conn, silent)
		r.wait(guestswitch.Connected)
		require.Eventually(t, func() bool { // the watch may not have begun
			r.ns.ip("addr", "replace", guestAddr.String(), "dev", "eth0")
			return len(r.events) > 0
		}, patience, 10*time.Millisecond)
		r.wait(guestswitch.Configured)
		r.ns.ip("addr", "flush", "dev", "eth0")
		require.Equal(t, guestAddr, r.wait(guestswitch.LeaseLost).Lease.Addr)
		r.stop()
	})
}
