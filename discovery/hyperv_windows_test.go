// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

// onlyWine ends t where the registry is not the test's to write: there, or under a
// Windows that runs VMs.
func onlyWine(t *testing.T) {
	t.Helper()
	if !house.OnWine() {
		house.Missing(t, "writes to where Windows keeps its VMs: make test-windows, which is under wine")
	}
}

// computeSystem has the Host Compute Service keep something of that name.
func computeSystem(t *testing.T, name string) (remove func()) {
	t.Helper()
	const service = `SOFTWARE\Microsoft\Windows NT\CurrentVersion\HostComputeService`
	path := service + `\VolatileStore\ComputeSystem\` + name
	key, _, err := registry.CreateKey(registry.LOCAL_MACHINE, path, registry.ALL_ACCESS)
	require.NoError(t, err)
	require.NoError(t, key.Close())
	t.Cleanup(func() {
		for ; path != service[:strings.LastIndexByte(service, '\\')]; path = path[:strings.LastIndexByte(path, '\\')] {
			_ = registry.DeleteKey(registry.LOCAL_MACHINE, path) // unless it has others
		}
	})
	return func() { require.NoError(t, registry.DeleteKey(registry.LOCAL_MACHINE, path)) }
}

// What the registry has at the time of asking are the peers: VMs only, as they come
// and go.
func TestHyperVPeersComeAndGo(t *testing.T) {
	onlyWine(t)
	const one, two = "1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11", "2d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11"
	peers := func() (ids []string) {
		t.Helper()
		all, err := discovery.HyperV().Peers(t.Context())
		require.NoError(t, err)
		for _, p := range all {
			ids = append(ids, p.ID())
		}
		return ids
	}
	require.Empty(t, peers(), "there never was a VM")
	computeSystem(t, "no GUID")
	require.Empty(t, peers())
	stop := computeSystem(t, strings.ToUpper(one))
	computeSystem(t, two)
	require.ElementsMatch(t, []string{one, two}, peers())
	stop()
	require.Equal(t, []string{two}, peers())
}

// Without the address family of Hyper-V, which wine has not, all calls say so at
// once, and searching goes on until its context ends.
func TestHyperVWithoutHyperV(t *testing.T) {
	onlyWine(t)
	computeSystem(t, "1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11")
	peers, err := discovery.HyperV().Peers(t.Context())
	require.NoError(t, err)
	_, err = peers[0].Dial(t.Context(), discovery.RancherDesktop.HandshakePort)
	require.ErrorIs(t, err, windows.WSAEAFNOSUPPORT)
	_, err = peers[0].Listen(discovery.RancherDesktop.DataPort)
	require.ErrorIs(t, err, windows.WSAEAFNOSUPPORT)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = discoverer(discovery.HyperV()).Discover(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
