// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package gvisor imports guestnet where the build has the newest gVisor, and
// does nothing with it: that it builds, for every system, is the point.
package gvisor

import (
	_ "github.com/rancher-sandbox/guestnet/discovery"
	_ "github.com/rancher-sandbox/guestnet/guestswitch"
	_ "github.com/rancher-sandbox/guestnet/hostswitch"
	_ "github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
	_ "github.com/rancher-sandbox/guestnet/lifecycle"
	_ "github.com/rancher-sandbox/guestnet/socketbridge"
	_ "github.com/rancher-sandbox/guestnet/subnet"
)
