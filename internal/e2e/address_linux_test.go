// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leaseScript is what an image may have: it configures the interface, and keeps
// what it was told.
const leaseScript = `#!/bin/sh
set -e
echo "$1 ip=$ip mask=$mask router=$router dns=$dns domain=$domain search=$search mtu=$mtu" >>"$0.log"
case $1 in
deconfig)
	ip addr flush dev "$interface" ;;
bound | renew)
	ip link set dev "$interface" mtu "$mtu"
	ip addr replace "$ip/$mask" dev "$interface"
	ip route replace default via "$router" dev "$interface" ;;
esac
`

// testAddress: each kind of DHCP client gets the guest onto the network, one
// after the other on the same host, and takes it off again.
func testAddress(t *testing.T, p programs) {
	l := newLab(t, p, "-mtu", "1480")
	script := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(script, []byte(leaseScript), 0o755))
	guestswitch := []string{p.guestswitch, "-v", "-connect", "unix://" + l.net}

	for name, tc := range map[string]struct {
		args     []string
		file     string // that comes to hold these lines
		lines    []string
		restored bool
	}{
		"builtin": {
			args:     append(guestswitch, "-netns", l.guest.path(), "-resolv-conf", l.guest.resolvConf()),
			file:     l.guest.resolvConf(),
			lines:    []string{"search lab.test example.test", "nameserver 192.168.127.1"},
			restored: true,
		},
		"udhcpc": { // with the script that comes with it
			args:  l.guest.inside(append(guestswitch, "-dhcp", "exec:udhcpc -f -i eth0")...),
			file:  l.guest.resolvConf(),
			lines: []string{"domain lab.test", "nameserver 192.168.127.1"},
		},
		"script": {
			args: l.guest.inside(append(guestswitch, "-dhcp", "script:"+script)...),
			file: script + ".log",
			lines: []string{"deconfig ip= ", "bound ip=192.168.127.2 mask=24 router=192.168.127.1 " +
				"dns=192.168.127.1 domain=lab.test search=lab.test example.test mtu=1480"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l.guest.write("resolv.conf", "# before\n")
			guest := start(t, tc.args...)
			require.Equal(t, guestAddr+"/24", waitAddress(t, l.guest, "eth0", guest))
			eth0, ok := tryLink(l.guest, "eth0")
			require.True(t, ok)
			require.Equal(t, guestMAC, eth0.Address)
			require.Equal(t, 1480, eth0.MTU)
			require.EventuallyWithT(t, func(c *assert.CollectT) { requireFile(c, tc.file, tc.lines...) }, patience, tick)
			require.Equal(t, banner(l.world), l.guest.run("curl", "-sS", "http://"+worldAddr))

			guest.Stop()
			_, ok = tryLink(l.guest, "eth0")
			require.False(t, ok, "the tap is still there")
			if tc.restored {
				requireFile(t, tc.file, "# before")
			}
		})
	}
}

func requireFile(t require.TestingT, file string, lines ...string) {
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, line := range lines {
		require.Contains(t, string(content), line)
	}
}

// testSubnet: everything follows the subnet.
func testSubnet(t *testing.T, p programs) {
	l := newLab(t, p, "-subnet", "10.9.0.0/16", "-forward", "tcp:"+forwardedHTTP+"=:"+portHTTP)
	require.Equal(t, "10.9.0.2/16", waitAddress(t, l.guest, "eth0", l.attach(l.guest)))
	serve(t, l.guest, "0.0.0.0")
	require.Equal(t, "10.9.255.254", l.guest.run("dig", "+short", "host.docker.internal"))
	require.Equal(t, banner(l.host), l.guest.run("curl", "-sS", "http://10.9.255.254"))
	require.Equal(t, banner(l.guest), l.host.run("curl", "-sS", "http://"+forwardedHTTP))
}
