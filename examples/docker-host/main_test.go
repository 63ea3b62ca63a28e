// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
)

func TestMain(m *testing.M) {
	// go-winio has one goroutine for the completions of the whole process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/Microsoft/go-winio.ioCompletionProcessor"))
}

func TestWrongCommandLines(t *testing.T) {
	where := "unix:/p.sock"
	if runtime.GOOS == "windows" {
		where = enginePipe
	}
	servicetest.Mistakes(t, "docker-host", run, map[string]servicetest.Mistake{
		"nothing":           {[]string{"-listen", where}, "-guest or -discover is missing"},
		"both":              {[]string{"-listen", where, "-guest", "vsock:3", "-discover", "hyperv"}, "-guest and -discover: write one of them, not both"},
		"protocol of none":  {[]string{"-listen", where, "-guest", "unix:/d", "-protocol", "rancher-desktop"}, "-protocol goes with -discover"},
		"not listening":     {[]string{"-listen", "", "-guest", "vsock:3"}, "-listen is missing"},
		"listening on TCP":  {[]string{"-listen", "tcp:127.0.0.1:2375", "-guest", "vsock:3"}, "-listen tcp:127.0.0.1:2375: write unix:PATH"},
		"listening nowhere": {[]string{"-listen", "unix:", "-guest", "vsock:3"}, "-listen unix:: "},
		"guest nonsense":    {[]string{"-listen", where, "-guest", "xen:1"}, "vsock:CID, hyperv:GUID or unix:DIRECTORY"},
		"guest: no folder":  {[]string{"-listen", where, "-guest", "unix:"}, "unix:DIRECTORY"},
		"discover nonsense": {[]string{"-listen", where, "-discover", "xen"}, "vsock:CID[,CID…], unix:DIRECTORY"},
		"protocol":          {[]string{"-listen", where, "-discover", "hyperv", "-protocol", "podman"}, "rancher-desktop or rancher-desktop-2"},
		"port":              {[]string{"-listen", where, "-guest", "vsock:3", "-port", "4294967295"}, "-port: write a number from 1 to 4294967294"},
		"no port":           {[]string{"-listen", where, "-guest", "vsock:3", "-port", "0"}, "-port: write a number from 1 to 4294967294"},
		"argument":          {[]string{"-listen", where, "-guest", "vsock:3", "more"}, `"more" is no flag`},
		"unknown flag":      {[]string{"-nonsense"}, "-nonsense"},
	})
}

func TestHelp(t *testing.T) {
	servicetest.Help(t, run, "-listen", "-guest", "-discover", "-protocol", "-port", "-drain", "-idle", "-max-conns", "-v")
}

// What this system does not have ends the program.
func TestVMsThatThereAreNot(t *testing.T) {
	listen, guest, discover := "unix:"+filepath.Join(t.TempDir(), "s"), "hyperv:ac2d15b8-7d3a-4b8e-9c51-0f6f0b5a9f10", "hyperv"
	if runtime.GOOS == "windows" {
		listen, guest, discover = enginePipe, "vsock:3", "vsock:3"
	}
	var stderr bytes.Buffer
	require.Equal(t, 2, run(t.Context(), []string{"-listen", listen, "-guest", guest}, &stderr))
	require.Equal(t, 2, run(t.Context(), []string{"-listen", listen, "-discover", discover}, &stderr))
	require.Equal(t, 2, bytes.Count(stderr.Bytes(), []byte(errors.ErrUnsupported.Error())))
}
