// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"io/fs"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

func TestForwardOfAPortThatTakesRootSaysSo(t *testing.T) {
	house.NeedRoot(t)
	sw := newSwitch(t, hostswitch.Config{})
	result := make(chan error)
	go func() {
		runtime.LockOSThread()                 // for good: it ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET) // in a new one the limit is 1024, wherever the test runs
		if err == nil {
			err = unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &make([]unix.CapUserData, 2)[0])
		}
		if err == nil {
			_, err = sw.Expose(t.Context(), hostswitch.Forward{Local: "0.0.0.0:80", Remote: ":80"})
		}
		result <- err
	}()
	err := await(t, result, "Expose")
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "expose tcp 0.0.0.0:80: ")
	require.ErrorContains(t, err, "net.ipv4.ip_unprivileged_port_start")
}
