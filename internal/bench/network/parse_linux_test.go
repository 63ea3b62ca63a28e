// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCPUTime(t *testing.T) {
	const rest = " S 1 2 3 0 -1 4194560 953 61 1 0 27 119 0 0 20 0 1 0 1402088"
	for name, c := range map[string]struct {
		stat string
		want time.Duration
	}{
		"plain":        {"13372 (slirp4netns)" + rest, 1460 * time.Millisecond},
		"a funny name": {"7 (a) S 1 (b c)" + rest, 1460 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := cpuTime(c.stat)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	for _, stat := range []string{"", "13372 (slirp4netns) S 1", "1 (x) S 1 2 3 0 -1 4194560 953 61 1 0 many 119 0"} {
		_, err := cpuTime(stat)
		require.Error(t, err, stat)
	}
}

func TestStatus(t *testing.T) {
	const status = "Name:\tx\nVmHWM:\t    4400 kB\nVmRSS:\t    3072 kB\nThreads:\tmany\n"
	mib, err := statusMiB(status, "VmRSS")
	require.NoError(t, err)
	require.InDelta(t, 3, mib, 1e-9)
	for _, name := range []string{"VmSwap", "Threads", "Vm"} {
		_, err = statusMiB(status, name)
		require.Error(t, err, name)
	}
}

// What iperf3 3.12 prints, without what is not read.
func TestIperfReport(t *testing.T) {
	tcp, err := iperfReport([]byte(`{"start":{},"end":{
		"sum_sent":{"seconds":2,"bytes":2600000000,"retransmits":7,"sender":true},
		"sum_received":{"seconds":2.0,"bytes":2500000000,"sender":true}}}`))
	require.NoError(t, err)
	require.InDelta(t, 10, tcp.rate(), 1e-9)
	require.InDelta(t, 7, tcp.retransmits, 0)

	udp, err := iperfReport([]byte(`{"end":{
		"sum_sent":{"seconds":1,"bytes":6400000,"packets":100000,"lost_packets":0},
		"sum_received":{"seconds":2,"bytes":1600000,"packets":90000,"lost_packets":65000}}}`))
	require.NoError(t, err)
	rate, lost := udp.packets(64)
	require.InDelta(t, 12.5, rate, 1e-9, "thousands in a second")
	require.InDelta(t, 75, lost, 1e-9, "those that the receiver never heard of too")

	for name, c := range map[string]struct{ out, says string }{
		"refused":          {`{"end":{},"error":"unable to connect to server: Connection refused"}`, "Connection refused"},
		"nothing received": {`{"end":{"sum_received":{"seconds":2,"bytes":0}}}`, "nothing was received"},
		"no end":           {`{"start":{}}`, "nothing was received"},
		"no JSON":          {`iperf3: error`, "invalid character"},
		"empty":            {``, "unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := iperfReport([]byte(c.out))
			require.ErrorContains(t, err, c.says)
		})
	}
}
