// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/subnet"
)

// Both tables are read: no route explains the address that .ci/wine gives its network,
// and no address the route.
func TestHostPrefixesOfWindows(t *testing.T) {
	if !house.OnWine() {
		house.Missing(t, "knows the network of make test-windows, which is under wine")
	}
	host, err := subnet.HostPrefixes()
	require.NoError(t, err)
	require.Subset(t, host, prefixes("192.0.2.1/32", "198.51.100.0/24"))
}
