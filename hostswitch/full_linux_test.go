// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

// A download goes on to a guest whose queue is never empty enough: another guest's frames,
// which ask for nothing, keep it full. (Elsewhere a timer takes milliseconds, and the guest
// hours for what the queue holds.)
func TestADownloadEndsThoughTheQueueStaysFull(t *testing.T) {
	const size = 256 << 10
	sw := newSwitch(t, hostswitch.Config{})
	o := plugOffloader(t, sw, 2, hostswitch.Port{}).agree().withStack(func() { <-time.After(pace / 25) })
	server := hostTCP(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = c.Write(make([]byte, size))
	})
	c := o.dial(t, server)
	flooder := attachRaw(t, sw, 3)
	ctx, stop := context.WithCancel(t.Context())
	flooding := during(func() {
		for f := flooder.marker(string(make([]byte, 1400))); ctx.Err() == nil; {
			if !flooder.out.Put(f) {
				<-time.After(time.Millisecond)
			}
		}
	})
	eventually(t, func() bool { return sw.Snapshot().Drops["queueFull"] > 0 }, "the queue is full")
	_, err := c.Write([]byte{1})
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(4*patience)))
	n, err := io.Copy(io.Discard, c)
	stop()
	await(t, flooding, "the other guest")
	require.NoError(t, err)
	require.EqualValues(t, size, n)
}
