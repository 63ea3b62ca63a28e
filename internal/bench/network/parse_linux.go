// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// cpuTime returns user and system time, the 14th and 15th field of /proc/PID/stat
// (proc(5)). The second, the program's name, may have spaces and parentheses.
func cpuTime(stat string) (time.Duration, error) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("%q is no /proc/PID/stat", stat)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// statusMiB returns a line in kB of /proc/PID/status.
func statusMiB(status, name string) (float64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in the status of the process", name)
}

// A transfer is what iperf3 says about one.
type transfer struct {
	seconds, gbits    float64 // that the receiver got, and in how long
	sent, retransmits float64 // packets: of UDP, of TCP
}

func (t transfer) rate() float64 { return t.gbits / t.seconds }

// packets returns how many thousand of a size the receiver got each second, and the
// share that got lost, in percent.
func (t transfer) packets(size int) (rate, lost float64) {
	got := t.gbits * 1e9 / 8 / float64(size)
	return got / t.seconds / 1e3, 100 * (1 - got/t.sent)
}

// iperfReport reads what iperf3 -J prints. Nothing received is an error: no network
// here is that slow.
func iperfReport(out []byte) (transfer, error) {
	type sum struct{ Seconds, Bytes, Packets, Retransmits float64 }
	var report struct {
		Error string
		End   struct {
			Sent     sum `json:"sum_sent"`
			Received sum `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return transfer{}, fmt.Errorf("iperf3: %w", err)
	}
	if report.Error != "" {
		return transfer{}, errors.New("iperf3: " + report.Error)
	}
	got := report.End.Received
	if got.Bytes <= 0 || got.Seconds <= 0 {
		return transfer{}, errors.New("iperf3: nothing was received")
	}
	return transfer{
		seconds: got.Seconds, gbits: got.Bytes * 8 / 1e9,
		sent: report.End.Sent.Packets, retransmits: report.End.Sent.Retransmits,
	}, nil
}
