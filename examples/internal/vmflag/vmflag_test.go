// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package vmflag_test

import (
	"flag"
	"io"
	"log/slog"
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
		vmflag.Protocol(flags, &got, "what is tested")
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
		source, err := vmflag.Source(s, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.Equal(t, []uint32{3, 42}, source.(*discovery.CIDSource).CIDs)
	}
	dir := t.TempDir()
	for _, s := range []string{"unix:" + dir, "unix://" + dir} {
		source, err := vmflag.Source(s, nil)
		require.NoError(t, err)
		peers, err := source.Peers(t.Context())
		require.NoError(t, err)
		require.Len(t, peers, 1)
	}
	for s, says := range map[string]string{
		"xen": vmflag.SourceForms, "vsock:": vmflag.SourceForms, "unix:": vmflag.SourceForms, "hyperv:x": vmflag.SourceForms,
		"vsock:3,x": `"x" is not a CID`, "vsock:4294967296": "is not a CID", "vsock:-1": "is not a CID", "vsock:3,": `"" is not a CID`,
	} {
		_, err := vmflag.Source(s, nil)
		require.ErrorContains(t, err, says, s)
	}
}
