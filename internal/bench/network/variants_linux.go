// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A variant is a network between a guest and its host. Programs are command lines in
// which {dir}, {netns}, {mac}, {api} and {frames} are filled in. The host's run in a
// namespace of their own.
type variant struct {
	key, name   string
	host, guest []string // nil: there is none
	address     string   // of the host's loopback, seen by the guest
	ours        bool     // measured with two guests too
}

func (v variant) id() string { return v.key }

var (
	gvproxy    = []string{"{dir}/gvproxy", "-mtu", "1500", "-listen", "unix://{api}", "-ssh-port", "-1"}
	hostswitch = []string{"{dir}/hostswitch", "-mtu", "1500", "-listen", "unix://{frames}", "-api", "unix://{api}"}
	// It has no namespace of its own to go to.
	gvforwarder = []string{"ip", "netns", "exec", "{netns}", "{dir}/gvforwarder", "-url", "unix://{api}",
		"-mac", "{mac}", "-iface", "eth0", "-stop-if-exist", "none"}
	guestswitch = []string{"{dir}/guestswitch", "-connect", "unix://{frames}", "-mac", "{mac}", "-netns", "/run/netns/{netns}"}
)

const alias = "192.168.127.254" // of the host, in the network of gvproxy and of ours

var variants = []variant{
	{key: "gvproxy", name: "gvproxy + gvforwarder", host: gvproxy, guest: gvforwarder, address: alias},
	{key: "oldguest", name: "guestnet + gvforwarder", host: hostswitch, guest: gvforwarder, address: alias, ours: true},
	{key: "plain", name: "guestnet, plain", host: hostswitch, guest: append(slices.Clip(guestswitch), "-framing", "plain"), address: alias, ours: true},
	{key: "guestnet", name: "guestnet", host: hostswitch, guest: guestswitch, address: alias, ours: true},
	slirp("1500"), slirp("65520"),
	pasta("1500"), pasta("65520"),
	{key: "kernel", name: "kernel loopback", address: "127.0.0.1"},
}

// The names of the variants that the chart has in bold.
var ours = []string{"guestnet + gvforwarder", "guestnet, plain", "guestnet"}

func slirp(mtu string) variant {
	return variant{key: "slirp" + mtu, name: "slirp4netns " + mtu, address: "10.0.2.2", host: []string{
		"slirp4netns", "--configure", "--mtu=" + mtu, "--netns-type=path", "/run/netns/{netns}", "eth0"}}
}

func pasta(mtu string) variant {
	return variant{key: "pasta" + mtu, name: "pasta " + mtu, address: router, host: []string{
		"pasta", "--foreground", "--runas", "0", "--config-net", "--mtu", mtu, "--netns-only", "--netns", "/run/netns/{netns}",
		"-t", "none", "-u", "none", "-T", "none", "-U", "none"}}
}

// packages has the Debian package of each program that is not compiled here.
var packages = map[string]string{
	"ip": "iproute2", "iperf3": "iperf3", "iptables": "iptables",
	"udhcpc": "udhcpc", "slirp4netns": "slirp4netns", "pasta": "passt",
}

// programsFor says which programs are missing and how to get them.
func programsFor(vs []variant) error {
	wanted := []string{"ip", "iperf3", "iptables"}
	for _, v := range vs {
		switch {
		case len(v.guest) > 0 && v.guest[0] == "ip":
			wanted = append(wanted, "udhcpc") // gvforwarder starts it
		case v.host != nil && v.guest == nil:
			wanted = append(wanted, v.host[0])
		}
	}
	missing := map[string]bool{}
	var install []string
	for _, name := range wanted {
		if _, err := exec.LookPath(name); err != nil && !missing[name] {
			missing[name] = true
			install = append(install, packages[name])
		}
	}
	if install != nil {
		return errors.New("programs are missing: make bench-setup, or apt-get install " + strings.Join(install, " "))
	}
	return nil
}

// build compiles the programs of the variants into dir.
func build(ctx context.Context, dir string, vs []variant) error {
	const peers = "github.com/containers/gvisor-tap-vsock/cmd/"
	used := map[string]bool{}
	for _, v := range vs {
		for _, arg := range slices.Concat(v.host, v.guest) {
			used[arg] = true
		}
	}
	for name, args := range map[string][]string{
		"gvproxy":     {"-C", "internal/compat/gvtv", "-o", filepath.Join(dir, "gvproxy"), peers + "gvproxy"},
		"gvforwarder": {"-C", "internal/compat/gvtv", "-o", filepath.Join(dir, "gvforwarder"), peers + "vm"},
		"hostswitch":  {"-o", filepath.Join(dir, "hostswitch"), "./examples/hostswitch"},
		"guestswitch": {"-o", filepath.Join(dir, "guestswitch"), "./examples/guestswitch"},
	} {
		if !used["{dir}/"+name] {
			continue
		}
		if text, err := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, text)
		}
	}
	return nil
}

// about says on what machine the figures came about, and of what.
func about(ctx context.Context, o options) map[string]string {
	a := map[string]string{
		"cores":   fmt.Sprint(runtime.NumCPU()),
		"go":      runtime.Version(),
		"rounds":  fmt.Sprint(o.rounds),
		"seconds": fmt.Sprint(o.seconds),
		"gvproxy": "v0.8.9",
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		a["kernel"] = strings.TrimSpace(string(text))
	}
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	if _, model, ok := strings.Cut(string(cpu), "model name"); ok {
		model, _, _ = strings.Cut(model, "\n")
		a["cpu"] = strings.Trim(model, "\t :")
	}
	if commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		a["commit"] = strings.TrimSpace(string(commit))
	}
	return a
}
