// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/Microsoft/go-winio/pkg/guid"
	linuxkit "github.com/linuxkit/virtsock/pkg/hvsock"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
)

func TestHyperVPeer(t *testing.T) {
	const id = "1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11"
	for _, guid := range []string{id, "1D0D4C0A-7F0A-4B6F-9C63-3A6F0E5B2C11", "{" + id + "}"} {
		peer, err := discovery.HyperVPeer(guid)
		require.NoError(t, err)
		require.Equal(t, id, peer.ID())
	}
	for guid, want := range map[string]string{
		"":                                     "is not the GUID of a VM",
		"WSL":                                  "is not the GUID of a VM",
		id[:35]:                                "is not the GUID of a VM",
		"00000000-0000-0000-0000-000000000000": "any VM",
		"90db8b89-0d35-4f79-8ce9-49ea0ac8b7cd": "any VM of this host",
	} {
		_, err := discovery.HyperVPeer(guid)
		require.ErrorContains(t, err, want)
		requirePermanent(t, err)
	}
}

// TestHyperVGUID: bytes, and what both packages take them for.
func TestHyperVGUID(t *testing.T) {
	const id = "1d0d4c0a-7f0b-4b6f-9c63-3a6f0e5b2c11"
	peer, err := discovery.HyperVPeer(strings.ToUpper(id))
	require.NoError(t, err)
	winio, virtsock, ok := discovery.HyperVGUID(peer)
	require.True(t, ok)
	require.Equal(t, "1d0d4c0a7f0b4b6f9c633a6f0e5b2c11", hex.EncodeToString(winio[:]))
	require.Equal(t, "0a4c0d1d0b7f6f4b9c633a6f0e5b2c11", hex.EncodeToString(virtsock[:]))
	microsofts, err := guid.FromString(id)
	require.NoError(t, err)
	require.Equal(t, microsofts, guid.FromArray(winio))
	linuxkits, err := linuxkit.GUIDFromString(id)
	require.NoError(t, err)
	require.Equal(t, linuxkits, linuxkit.GUID(virtsock))

	for _, p := range []discovery.Peer{stranger{peer}, nil} {
		winio, virtsock, ok = discovery.HyperVGUID(p)
		require.False(t, ok)
		require.Zero(t, winio)
		require.Zero(t, virtsock)
	}
}

// A stranger has the name of a VM, and is none of ours.
type stranger struct{ discovery.Peer }

func TestHyperVElsewhere(t *testing.T) {
	if runtime.GOOS == "windows" {
		_, err := discovery.HyperV().Peers(t.Context())
		require.NoError(t, err, "no VM is no error")
		return
	}
	_, err := discoverer(discovery.HyperV()).Discover(t.Context())
	require.ErrorIs(t, err, errors.ErrUnsupported)
	requirePermanent(t, err)
	peer, err := discovery.HyperVPeer("1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11")
	require.NoError(t, err)
	_, err = peer.Dial(t.Context(), 6669)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = peer.Listen(6656)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
