// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/internal/house/process"
)

const (
	patience = process.Patience
	tick     = process.Tick
)

// Addresses of the lab; those of the virtual network are its defaults.
const (
	worldAddr = "203.0.113.1"  // the servers
	worldDNS  = "198.51.100.1" // the host's name server, and its default route
	otherDNS  = "198.51.100.3" // another one
	hostAddr  = "198.51.100.2"
	nobody    = "203.0.113.66" // behind the default route, but nobody has it
	gateway   = "192.168.127.1"
	guestAddr = "192.168.127.2"
	hostAlias = "192.168.127.254"
	guestMAC  = "5a:94:ef:e4:0c:ee"
)

const hostResolvConf = "nameserver " + worldDNS + "\nsearch lab.test example.test\n"

// programs are those of a user, with the race detector in them unless it is their
// speed that counts.
type programs struct{ hostswitch, guestswitch, gvforwarder string }

// build compiles them. What nobody here wrote comes from the module that has all
// of gvisor-tap-vsock.
func build(t *testing.T) programs {
	t.Helper()
	dir := t.TempDir()
	p := programs{
		hostswitch:  filepath.Join(dir, "hostswitch"),
		guestswitch: filepath.Join(dir, "guestswitch"),
		gvforwarder: filepath.Join(dir, "gvforwarder"),
	}
	race := "-race=" + strconv.FormatBool(!*soak)
	for _, args := range [][]string{
		{"build", race, "-o", dir, "../../examples/hostswitch", "../../examples/guestswitch"},
		{"build", "-C", "../compat/gvtv", "-o", p.gvforwarder, "github.com/containers/gvisor-tap-vsock/cmd/vm"},
	} {
		out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
		require.NoError(t, err, "go %s: %s", strings.Join(args, " "), out)
	}
	return p
}

// A lab is a world, a host in it, and a guest of the host that nothing runs in
// yet.
type lab struct {
	t                  *testing.T
	programs           programs
	world, host, guest *namespace
	net, api           string // sockets of the host's switch
	hostswitch         *process.Process
	guestswitch        *process.Process // the last one that startGuest has started
}

// newLab lays out the namespaces with their servers, and starts the host's
// switch with the arguments given and those that all have.
func newLab(t *testing.T, p programs, args ...string) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{
		t: t, programs: p,
		world: newNamespace(t, "world"), host: newNamespace(t, "host"), guest: newNamespace(t, "guest"),
		net: filepath.Join(dir, "net"), api: filepath.Join(dir, "api"),
	}
	out, err := ip(t, "link", "add", "eth0", "netns", l.world.name, "type", "veth", "peer", "name", "eth0", "netns", l.host.name)
	require.NoError(t, err, out)
	for _, a := range []string{worldDNS, otherDNS} {
		l.world.run("ip", "addr", "add", a+"/24", "dev", "eth0")
	}
	l.world.run("ip", "addr", "add", worldAddr+"/32", "dev", "lo")
	l.world.run("ip", "link", "set", "eth0", "up")
	l.host.run("ip", "addr", "add", hostAddr+"/24", "dev", "eth0")
	l.host.run("ip", "link", "set", "eth0", "up")
	l.host.run("ip", "route", "add", "default", "via", worldDNS)
	l.host.sysctl("net.ipv4.ping_group_range", "0 2147483647")
	l.host.write("resolv.conf", hostResolvConf)
	l.host.write("hosts", "192.0.2.9 pinned.test\n")
	serve(t, l.world, worldAddr)
	serveDNS(t, l.world, worldDNS)
	serveDNS(t, l.world, otherDNS)
	serve(t, l.host, "127.0.0.1")
	l.startHost(args...)
	return l
}

// start starts a program that the test ends.
func start(t *testing.T, args ...string) *process.Process {
	t.Helper()
	return process.Start(t, process.Command(t, args...))
}

// startHost starts examples/hostswitch and waits until guests may come.
func (l *lab) startHost(args ...string) {
	l.t.Helper()
	all := append([]string{l.programs.hostswitch, "-listen", "unix://" + l.net, "-api", "unix://" + l.api}, args...)
	l.hostswitch = start(l.t, l.host.inside(all...)...)
	l.hostswitch.WaitLog("msg=ready")
}

// startGuest starts examples/guestswitch in the guest's namespace, and waits
// until it has all that the host gives it.
func (l *lab) startGuest(args ...string) *process.Process {
	l.t.Helper()
	l.guestswitch = l.attach(l.guest, args...)
	require.Equal(l.t, guestAddr+"/24", waitAddress(l.t, l.guest, "eth0", l.guestswitch))
	return l.guestswitch
}

// startGvforwarder is startGuest for a guest that nobody here wrote, over POST
// /connect on the API as it does with gvproxy, and with udhcpc and its script.
func (l *lab) startGvforwarder() *process.Process {
	l.t.Helper()
	p := start(l.t, l.guest.inside(l.programs.gvforwarder, "-url", "unix://"+l.api, "-stop-if-exist", "")...)
	require.Equal(l.t, guestAddr+"/24", waitAddress(l.t, l.guest, "tap0", p))
	return p
}

// attach starts examples/guestswitch with its tap in a namespace. The program is
// outside, and so is what it does to files.
func (l *lab) attach(n *namespace, args ...string) *process.Process {
	l.t.Helper()
	p := start(l.t, append([]string{
		l.programs.guestswitch, "-v", "-connect", "unix://" + l.net, "-netns", n.path(), "-resolv-conf", n.resolvConf(),
	}, args...)...)
	p.WaitLog("kind=Configured")
	return p
}

// waitAddress waits for a guest's address and default route, and returns the address.
func waitAddress(t *testing.T, n *namespace, iface string, p *process.Process) (address string) {
	t.Helper()
	require.Eventually(t, func() bool {
		l, _ := tryLink(n, iface)
		route, err := n.try("ip", "route", "show", "default")
		address = l.inet()
		return p.Ended() || address != "" && err == nil && strings.Contains(route, "default via ")
	}, patience, tick, "%s has no address", iface)
	require.NotEmpty(t, address, "%s %s", p.Cmd, p.State())
	return address
}

// link is what ip(8) says about an interface.
type link struct {
	Ifname, Address string
	MTU             int
	AddrInfo        []struct {
		Family, Local string
		Prefixlen     int
	} `json:"addr_info"`
	Stats64 struct{ RX, TX counter }
}

// A counter is of frames, as the interface sees them, headers included.
type counter struct{ Bytes, Packets int }

// inet returns the IPv4 address and the length of its prefix.
func (l link) inet() string {
	for _, a := range l.AddrInfo {
		if a.Family == "inet" {
			return fmt.Sprintf("%s/%d", a.Local, a.Prefixlen)
		}
	}
	return ""
}

func tryLink(n *namespace, iface string) (link, bool) {
	out, err := n.try("ip", "-s", "-json", "addr", "show", "dev", iface)
	var links []link
	if err != nil || json.Unmarshal([]byte(out), &links) != nil || len(links) == 0 {
		return link{}, false
	}
	return links[0], true
}

// needs ends the test unless this machine can run any of this.
func needs(t *testing.T) {
	t.Helper()
	house.NeedRoot(t)
	house.NeedPrograms(t, "curl", "dig", "ip", "iperf3", "iptables", "ping", "udhcpc")
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		house.Missing(t, "no tap devices on this machine: modprobe tun")
	}
}
