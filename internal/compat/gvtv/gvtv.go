// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package gvtv imports guestnet and all of gvisor-tap-vsock, and does nothing
// with them: that the two build together, for every system, is the point.
package gvtv

import (
	_ "github.com/containers/gvisor-tap-vsock/pkg/client"
	_ "github.com/containers/gvisor-tap-vsock/pkg/fs"
	_ "github.com/containers/gvisor-tap-vsock/pkg/net/stdio"
	_ "github.com/containers/gvisor-tap-vsock/pkg/notification"
	_ "github.com/containers/gvisor-tap-vsock/pkg/services/dhcp"
	_ "github.com/containers/gvisor-tap-vsock/pkg/services/dns"
	_ "github.com/containers/gvisor-tap-vsock/pkg/services/forwarder"
	_ "github.com/containers/gvisor-tap-vsock/pkg/sshclient"
	_ "github.com/containers/gvisor-tap-vsock/pkg/tap"
	_ "github.com/containers/gvisor-tap-vsock/pkg/transport"
	_ "github.com/containers/gvisor-tap-vsock/pkg/types"
	_ "github.com/containers/gvisor-tap-vsock/pkg/utils"
	_ "github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
	_ "github.com/rancher-sandbox/guestnet/discovery"
	_ "github.com/rancher-sandbox/guestnet/guestswitch"
	_ "github.com/rancher-sandbox/guestnet/hostswitch"
	_ "github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
	_ "github.com/rancher-sandbox/guestnet/lifecycle"
	_ "github.com/rancher-sandbox/guestnet/socketbridge"
	_ "github.com/rancher-sandbox/guestnet/subnet"
)
