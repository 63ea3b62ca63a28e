// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Addresses of the lab: of the host's only route, which leads nowhere, and of the
// container behind a guest.
const (
	hostAddress      = "198.51.100.2"
	router           = "198.51.100.1"
	bridgeAddress    = "10.88.0.1"
	containerAddress = "10.88.0.2"
)

// Ports of the host's loopback.
const (
	iperfPort      = 5201
	otherIperfPort = 5202 // for the other guest
	echoPort       = 5203
)

// A lab is a host with a guest of one variant, both with all that is measured.
type lab struct {
	ctx     context.Context // ends when a program does
	ended   context.CancelCauseFunc
	variant variant
	seconds int
	dir     string // of sockets and logs

	hostNS, guestNS string
	host, guest     *process // nil: the variant has none
	idle, peak      float64  // MiB of the host

	undo []func()
}

func newLab(ctx context.Context, dir string, v variant, seconds int) (*lab, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &lab{ctx: ctx, ended: cancel, variant: v, seconds: seconds, undo: []func(){func() { cancel(nil) }}}
	if err := l.setUp(dir); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// close undoes everything, the last first, even if ctx has ended.
func (l *lab) close() {
	for _, f := range slices.Backward(l.undo) {
		f()
	}
}

func (l *lab) setUp(dir string) (err error) {
	if l.dir, err = os.MkdirTemp(dir, "lab"); err != nil {
		return err
	}
	if l.hostNS, err = l.namespace("h"); err != nil {
		return err
	}
	l.guestNS = l.hostNS
	if err := l.ip(
		// pasta gives the guest what the host has, and wants it to have something.
		"link add eth0 netns "+l.hostNS+" type veth peer name nowhere netns "+l.hostNS,
		"-n "+l.hostNS+" link set nowhere up",
		"-n "+l.hostNS+" link set eth0 up",
		"-n "+l.hostNS+" addr add "+hostAddress+"/24 dev eth0",
		"-n "+l.hostNS+" route add default via "+router,
	); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, server := range [][]string{
		{"iperf3", "-s", "-B", "127.0.0.1", "-p", strconv.Itoa(iperfPort)},
		{"iperf3", "-s", "-B", "127.0.0.1", "-p", strconv.Itoa(otherIperfPort)},
		{self, "load", "echo", fmt.Sprintf("127.0.0.1:%d", echoPort)},
	} {
		if _, err := l.start(inside(l.hostNS, server...)); err != nil {
			return err
		}
	}
	if l.variant.host == nil {
		return nil
	}
	if l.guestNS, err = l.namespace("g"); err != nil {
		return err
	}
	if l.host, err = l.start(inside(l.hostNS, l.fill(l.variant.host, l.guestNS, "")...)); err != nil {
		return err
	}
	if l.variant.guest != nil {
		if err := await(l.ctx, "the host", func() bool { _, err := os.Stat(l.dir + "/api"); return err == nil }); err != nil {
			return err
		}
	}
	if l.guest, err = l.join(l.guestNS, "5a:94:ef:e4:0c:ee"); err != nil {
		return err
	}
	l.idle, err = l.host.memory("RssAnon")
	return err
}

// join starts a guest's relay, if there is one, and waits until the guest has its
// address.
func (l *lab) join(netns, mac string) (p *process, err error) {
	if l.variant.guest != nil {
		if p, err = l.start(l.fill(l.variant.guest, netns, mac)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(l.ctx, 30*time.Second)
	defer cancel()
	return p, await(ctx, "a lease", func() bool {
		out, _ := command(ctx, "ip", "-n", netns, "route")
		return strings.Contains(string(out), "default")
	})
}

func (l *lab) fill(args []string, netns, mac string) (filled []string) {
	r := strings.NewReplacer("{dir}", filepath.Dir(l.dir), "{netns}", netns, "{mac}", mac, "{api}", l.dir+"/api", "{frames}", l.dir+"/frames")
	for _, a := range args {
		filled = append(filled, r.Replace(a))
	}
	return filled
}

func inside(netns string, args ...string) []string {
	return append([]string{"ip", "netns", "exec", netns}, args...)
}

// start starts a program that runs as long as the lab does.
func (l *lab) start(args []string) (*process, error) {
	p, err := start(l.ctx, l.ended, filepath.Join(l.dir, fmt.Sprintf("log%d", len(l.undo))), args...)
	if err == nil {
		l.undo = append(l.undo, p.stop)
	}
	return p, err
}

// namespace makes one, whose loopback is up.
func (l *lab) namespace(suffix string) (string, error) {
	name := fmt.Sprintf("gnbench%d%s", os.Getpid(), suffix)
	// gvforwarder has udhcpc's script write resolv.conf: "ip netns exec" gives it
	// this one instead of the machine's.
	etc := filepath.Join("/etc/netns", name)
	l.undo = append(l.undo, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), 30*time.Second)
		defer cancel()
		_, _ = command(ctx, "ip", "netns", "del", name)
		_ = os.RemoveAll(etc)
		_ = os.Remove(filepath.Dir(etc)) // if nobody else has one
	})
	return name, errors.Join(
		os.MkdirAll(etc, 0o755),
		os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte("nameserver "+router+"\n"), 0o644),
		l.ip("netns add "+name, "-n "+name+" link set lo up"),
	)
}

// ip runs ip(8) with each of the arguments.
func (l *lab) ip(lines ...string) error {
	for _, line := range lines {
		if _, err := command(l.ctx, append([]string{"ip"}, strings.Fields(line)...)...); err != nil {
			return err
		}
	}
	return nil
}

// container makes a namespace behind the guest, whose MTU and way to the world are
// those that Docker gives its containers.
func (l *lab) container() (string, error) {
	name, err := l.namespace("c")
	if err != nil {
		return "", err
	}
	for _, line := range []string{
		"ip link add veth0 netns " + l.guestNS + " type veth peer name eth0 netns " + name,
		"ip -n " + l.guestNS + " addr add " + bridgeAddress + "/24 dev veth0",
		"ip -n " + l.guestNS + " link set veth0 up",
		"ip -n " + name + " addr add " + containerAddress + "/24 dev eth0",
		"ip -n " + name + " link set eth0 up",
		"ip -n " + name + " route add default via " + bridgeAddress,
		"ip netns exec " + l.guestNS + " sysctl -qw net.ipv4.ip_forward=1",
		"ip netns exec " + l.guestNS + " iptables -w 10 -t nat -A POSTROUTING -s " + containerAddress + " -j MASQUERADE",
	} {
		if _, err := command(l.ctx, strings.Fields(line)...); err != nil {
			return "", err
		}
	}
	return name, nil
}

// iperf measures one transfer from a namespace to a port of the host. A server that
// is not back from the last one refuses the next.
func (l *lab) iperf(netns string, port int, flags ...string) (t transfer, err error) {
	for range 5 {
		if t, err = l.tryIperf(netns, port, flags...); err == nil {
			return t, nil
		}
		pause := time.NewTimer(500 * time.Millisecond)
		select {
		case <-l.ctx.Done():
			pause.Stop()
			return t, errors.Join(err, context.Cause(l.ctx))
		case <-pause.C:
		}
	}
	return t, err
}

func (l *lab) tryIperf(netns string, port int, flags ...string) (transfer, error) {
	ctx, cancel := context.WithTimeout(l.ctx, time.Duration(l.seconds+15)*time.Second)
	defer cancel()
	out, err := command(ctx, l.iperfCommand(netns, port, l.seconds, flags...)...)
	if len(out) == 0 && err != nil {
		return transfer{}, err
	}
	return iperfReport(out) // has the error, too
}

func (l *lab) iperfCommand(netns string, port, seconds int, flags ...string) []string {
	return append(inside(netns, "iperf3", "-J", "-c", l.variant.address, "-p", strconv.Itoa(port), "-t", strconv.Itoa(seconds)), flags...)
}

// load runs a load of this program in the guest.
func (l *lab) load(what string, n int) (figures map[string]float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := command(l.ctx, inside(l.guestNS, self, "load", what, fmt.Sprintf("%s:%d", l.variant.address, echoPort), strconv.Itoa(n))...)
	if err != nil {
		return nil, err
	}
	return figures, json.Unmarshal(out, &figures)
}
