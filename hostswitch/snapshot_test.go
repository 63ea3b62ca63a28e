// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

func TestSnapshot(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	empty := sw.Snapshot()
	require.Zero(t, empty.LastFrame)
	require.Len(t, empty.Leases, 1, "the reserved one")

	g := attach(t, sw, 2)
	g.lease(t)
	f := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	c := g.dial(t, hostTCP(t, echo))
	_, err := c.Write(make([]byte, 10_000))
	require.NoError(t, err)
	require.Equal(t, "x", string(datagram(t, g.dialUDP(t, hostUDP(t)), []byte("x"))))
	g.send([]byte{1})
	eventually(t, func() bool { return sw.Snapshot().Drops["short"] == 1 }, "the bad frame")

	snap := sw.Snapshot()
	require.Equal(t, 1, snap.Connections)
	require.Equal(t, 1, snap.Flows)
	require.Equal(t, []hostswitch.Forward{f}, snap.Forwards)
	require.Len(t, snap.Ports, 1)
	p := snap.Ports[0]
	require.Equal(t, "guest 2", p.Name)
	require.Greater(t, p.BytesIn, uint64(10_000))
	require.Equal(t, snap.BytesIn, p.BytesIn)
	require.Equal(t, snap.BytesOut, p.BytesOut)
	require.Positive(t, p.FramesIn)
	require.Positive(t, p.FramesOut)
	require.Equal(t, map[string]uint64{"short": 1}, p.Drops)
	require.Equal(t, p.LastFrame, snap.LastFrame)
	require.False(t, snap.LastFrame.Before(p.Since))
	require.Equal(t, snap.Time.Sub(snap.LastFrame), snap.SinceLastFrame)
	require.Len(t, snap.CAM, 1)
	require.Equal(t, "5a:94:ef:e4:0c:ee", snap.CAM[0].MAC)
	require.Equal(t, p.ID, snap.CAM[0].Port)
	require.Len(t, snap.Leases, 1)
	require.Equal(t, netip.MustParseAddr("192.168.127.2"), snap.Leases[0].Addr)
	require.Equal(t, "5a:94:ef:e4:0c:ee", snap.Leases[0].MAC)
	require.True(t, snap.Leases[0].Static)
	require.False(t, snap.Leases[0].Expires.IsZero())
	require.Len(t, snap.ARP, 1)
	require.Equal(t, "5a:94:ef:e4:0c:ee", snap.ARP[0].MAC)

	first, err := json.Marshal(snap)
	require.NoError(t, err)
	var back hostswitch.Snapshot
	require.NoError(t, json.Unmarshal(first, &back))
	second, err := json.Marshal(back)
	require.NoError(t, err)
	require.JSONEq(t, string(first), string(second))
	require.Equal(t, snap.ARP, back.ARP)
	require.Equal(t, snap.Forwards, back.Forwards)

	var line bytes.Buffer
	slog.New(slog.NewTextHandler(&line, nil)).Info("network", "snapshot", snap)
	for _, part := range []string{"snapshot.ports=1", "snapshot.connections=1", "snapshot.flows=1", "short:1", "5a:94:ef:e4:0c:ee"} {
		require.Contains(t, line.String(), part)
	}

	require.NoError(t, c.Close())
	eventually(t, func() bool { return sw.Snapshot().Connections == 0 }, "the connection's end")
}
