// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWrongCommandLines(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no host":         {nil, "-connect is missing"},
		"unknown scheme":  {[]string{"-connect", "tcp://1.2.3.4:5"}, "unix:///PATH, vsock://CID:PORT or fd://NUMBER"},
		"no path":         {[]string{"-connect", "unix://"}, "needs a path"},
		"no port":         {[]string{"-connect", "vsock://2"}, "needs a CID and a port"},
		"no CID":          {[]string{"-connect", "vsock://:6656"}, "needs a CID and a port"},
		"CID too large":   {[]string{"-connect", "vsock://4294967296:1"}, "needs a CID and a port"},
		"no number":       {[]string{"-connect", "fd://x"}, "needs the number"},
		"MAC":             {[]string{"-mac", "nonsense"}, "-mac"},
		"MTU":             {[]string{"-mtu", "many"}, "-mtu"},
		"DHCP":            {[]string{"-dhcp", "dhclient"}, "exec:COMMAND"},
		"DHCP no command": {[]string{"-dhcp", "exec: "}, "exec:COMMAND"},
		"unknown flag":    {[]string{"-nonsense"}, "-nonsense"},
		"argument":        {[]string{"-connect", "fd://3", "more"}, `"more" is no flag`},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), c.args, &stderr))
			require.Contains(t, stderr.String(), "guestswitch: ")
			require.Contains(t, stderr.String(), c.says)
			require.Equal(t, 1, bytes.Count(stderr.Bytes(), []byte("\n")), "one line: %s", &stderr)
		})
	}
}

func TestHelp(t *testing.T) {
	var stderr bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-help"}, &stderr))
	for _, flag := range []string{"-connect", "-iface", "-mac", "-netns", "-mtu", "-resolv-conf", "-dhcp", "-v"} {
		require.Contains(t, stderr.String(), "\n  "+flag)
	}
}

// Whatever the system, and whoever runs it: what fails is said, with exit code 1.
func TestFailureIsSaid(t *testing.T) {
	var stderr bytes.Buffer
	missing := t.TempDir() + string(os.PathSeparator) + "gone"
	require.Equal(t, 1, run(t.Context(), []string{"-connect", "unix://" + missing, "-netns", missing}, &stderr))
	require.Contains(t, stderr.String(), "guestswitch: ")
}
