// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package vmflag_test

import (
	"errors"
	"flag"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/vmflag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProtocol(t *testing.T) {
	for want, args := range map[*discovery.Protocol][]string{
		&discovery.RancherDesktop:  nil,
		&discovery.RancherDesktop2: {"-protocol", "rancher-desktop-2"},
		nil:                        {"-protocol", "podman"},
	} {
		var got discovery.Protocol
		flags := flag.NewFlagSet("test", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		vmflag.Protocol(flags, &got, "handshake")
		if err := flags.Parse(args); want == nil {
			require.ErrorContains(t, err, "write rancher-desktop or rancher-desktop-2")
		} else {
			require.NoError(t, err)
			require.Equal(t, *want, got)
		}
	}
}

func TestSource(t *testing.T) {
	for _, s := range []string{"vsock:3,42", "vsock://3,42"} {
		source, err := vmflag.Source("linux", s, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.Equal(t, []uint32{3, 42}, source.(*discovery.CIDSource).CIDs)
	}
	dir := t.TempDir()
	for _, s := range []string{"unix:" + dir, "unix://" + dir} {
		source, err := vmflag.Source(runtime.GOOS, s, nil)
		require.NoError(t, err)
		require.NoError(t, vmflag.Missing(s))
		peers, err := source.Peers(t.Context())
		require.NoError(t, err)
		require.Len(t, peers, 1)
	}
	for s, says := range map[string]string{
		"xen": vmflag.SourceForms, "vsock:": vmflag.SourceForms, "unix:": vmflag.SourceForms, "hyperv:x": vmflag.SourceForms,
		"unix://relative": vmflag.SourceForms, "vsock:3,x": `"x" is not a CID`, "vsock:4294967296": "is not a CID", "vsock:-1": "is not a CID", "vsock:3,": `"" is not a CID`,
	} {
		system := "linux"
		if s == "hyperv:x" {
			system = "windows"
		}
		_, err := vmflag.Source(system, s, nil)
		require.ErrorContains(t, err, says, s)
	}
	gone, file := "unix:"+filepath.Join(dir, "gone"), filepath.Join(dir, "file")
	_, err := vmflag.Source(runtime.GOOS, gone, nil)
	require.NoError(t, err, "it may come")
	require.ErrorIs(t, vmflag.Missing(gone), fs.ErrNotExist)
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = vmflag.Source(runtime.GOOS, "unix:"+file, nil)
	require.ErrorContains(t, err, "is not a directory")
}

// What can never be is refused at once, and what can is said.
func TestVMsThatThereAreNot(t *testing.T) {
	for _, c := range [][3]string{
		{"linux", "hyperv", "use vsock:CID or unix:DIRECTORY"},
		{"windows", "vsock:3", "use hyperv or unix:DIRECTORY"},
		{"darwin", "vsock:3", "use unix:DIRECTORY"},
	} {
		_, err := vmflag.Source(c[0], c[1], nil)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, c[2])
	}
	if runtime.GOOS == "linux" {
		for _, cid := range []string{"0", "2", "3,4294967295"} {
			_, err := vmflag.Source("linux", "vsock:"+cid, nil)
			require.ErrorContains(t, err, "is not that of a guest", cid)
		}
	}
}
