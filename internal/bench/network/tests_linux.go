// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

// Columns that more than one test, the goals or the chart name.
const (
	colUp, colDown           = "up Gbit/s", "down Gbit/s"
	colUp4, colDown4         = "up ×4 Gbit/s", "down ×4 Gbit/s"
	colHostUp, colHostDown   = "up: host CPU ms/Gbit", "down: host CPU ms/Gbit"
	colUDP64, colUDP64Down   = "UDP 64 B up kpkt/s", "UDP 64 B down kpkt/s"
	colUDP14, colUDP14Down   = "UDP 1400 B up kpkt/s", "UDP 1400 B down kpkt/s"
	colTrip, colTrip99       = "1 byte p50 µs", "1 byte p99 µs"
	colConnect               = "connections/s"
	colFairUp, colFairDown   = "2 guests: up, slower/faster", "2 guests: down, slower/faster"
	colAloneUp, colAloneDown = "other stopped: up, of alone", "other stopped: down, of alone"
	colContUp, colContDown   = "container up Gbit/s", "container down Gbit/s"
	colContAgain             = "container up: retransmits"
	colIdle, colBusy         = "host idle, own MiB", "host at ×4 MiB"
	colPeak                  = "host peak MiB"
)

// A test measures some columns. One that a variant does not have it leaves out.
type test struct {
	key     string
	columns []sidebyside.Column
	run     func(*lab, sidebyside.Result) error
}

func (t test) id() string { return t.key }

// tests in the order of the table. The container is the last: from then on the
// guest's kernel tracks every connection.
var tests = []test{
	{"up", cols(colUp, colHostUp, "up: guest CPU ms/Gbit"), oneStream("up")},
	{"down", cols(colDown, colHostDown, "down: guest CPU ms/Gbit"), oneStream("down", "-R")},
	{"up4", cols(colUp4), fourStreams(colUp4)},
	{"down4", cols(colDown4, colBusy), fourStreams(colDown4, "-R")},
	{"udp64", udpColumns("UDP 64 B"), udp("UDP 64 B", 64)},
	{"udp1400", udpColumns("UDP 1400 B"), udp("UDP 1400 B", 1400)},
	{"trip", cols(colTrip, colTrip99), trips},
	{"connect", cols(colConnect), connect},
	{"guests", bare(colFairUp, colFairDown, colAloneUp, colAloneDown), twoGuests},
	{"container", cols(colContUp, colContDown, colContAgain), behindGuest},
}

// always is measured whatever is chosen.
var always = test{"memory", cols(colIdle, colPeak), memory}

// inOrder returns tests in the order in which they run: first those that what a
// transfer leaves behind would disturb, at last what is always measured.
func inOrder(ts []test) []test {
	loud := func(t test) bool { return t.key != "trip" && t.key != "connect" }
	quiet := slices.DeleteFunc(slices.Clone(ts), loud)
	return append(append(quiet, slices.DeleteFunc(slices.Clone(ts), func(t test) bool { return !loud(t) })...), always)
}

func cols(names ...string) (c []sidebyside.Column) {
	for _, n := range names {
		c = append(c, sidebyside.Column{Name: n})
	}
	return c
}

func bare(names ...string) []sidebyside.Column {
	c := cols(names...)
	for i := range c {
		c[i].Bare = true
	}
	return c
}

func oneStream(direction string, flags ...string) func(*lab, sidebyside.Result) error {
	return func(l *lab, r sidebyside.Result) error {
		processes := map[string]*process{"host": l.host, "guest": l.guest}
		before := map[string]float64{}
		for who, p := range processes {
			if p != nil {
				cpu, err := p.cpu()
				if err != nil {
					return err
				}
				before[who] = cpu.Seconds()
			}
		}
		t, err := l.iperf(l.guestNS, iperfPort, flags...)
		if err != nil {
			return err
		}
		r[direction+" Gbit/s"] = t.rate()
		for who, p := range processes {
			if p != nil {
				cpu, err := p.cpu()
				if err != nil {
					return err
				}
				r[direction+": "+who+" CPU ms/Gbit"] = 1e3 * (cpu.Seconds() - before[who]) / t.gbits
			}
		}
		return nil
	}
}

func fourStreams(column string, flags ...string) func(*lab, sidebyside.Result) error {
	return func(l *lab, r sidebyside.Result) error {
		if err := l.notePeak(); err != nil {
			return err
		}
		t, err := l.iperf(l.guestNS, iperfPort, append([]string{"-P", "4"}, flags...)...)
		if err != nil {
			return err
		}
		r[column] = t.rate()
		if l.host == nil {
			return nil
		}
		mib, err := l.host.memory("VmHWM")
		r[colBusy] = max(r[colBusy], mib)
		return err
	}
}

// notePeak begins to measure the peak of the host's memory anew.
func (l *lab) notePeak() error {
	if l.host == nil {
		return nil
	}
	mib, err := l.host.memory("VmHWM")
	if err != nil {
		return err
	}
	l.peak = max(l.peak, mib)
	return l.host.forgetPeak()
}

func memory(l *lab, r sidebyside.Result) error {
	if l.host == nil {
		return nil
	}
	err := l.notePeak()
	r[colIdle], r[colPeak] = l.idle, max(l.peak, r[colBusy])
	return err
}

// offers are the rates that UDP is sent at, in thousands of packets per second: as
// fast as it can a sender would only take the processor from those that carry.
var offers = []int{100, 200, 300, 400}

func udpColumns(name string) (c []sidebyside.Column) {
	for _, direction := range []string{" up", " down"} {
		c = append(append(c, cols(name+direction+" kpkt/s")...), bare(name+direction+" % lost of 100 kpkt/s")...)
	}
	return c
}

// udp takes the most that arrived of any offer, and the loss of the first.
func udp(name string, size int) func(*lab, sidebyside.Result) error {
	return func(l *lab, r sidebyside.Result) error {
		for direction, flags := range map[string][]string{" up": nil, " down": {"-R"}} {
			for i, offer := range offers {
				t, err := l.iperf(l.guestNS, iperfPort, append([]string{
					"-u", "-b", strconv.Itoa(offer * 1000 * size * 8), "-l", strconv.Itoa(size), "-t", "1"}, flags...)...)
				if err != nil {
					return fmt.Errorf("%s: %w", direction[1:], err)
				}
				rate, lost := t.packets(size)
				if i == 0 {
					r[name+direction+" % lost of 100 kpkt/s"] = lost
				}
				r[name+direction+" kpkt/s"] = max(r[name+direction+" kpkt/s"], rate)
			}
		}
		return nil
	}
}

func trips(l *lab, r sidebyside.Result) error {
	f, err := l.load("trips", 5000*l.seconds)
	if err == nil {
		r[colTrip], r[colTrip99] = f["p50"], f["p99"]
	}
	return err
}

func connect(l *lab, r sidebyside.Result) error {
	f, err := l.load("connections", 1000*l.seconds)
	if err == nil {
		r[colConnect] = f["rate"]
	}
	return err
}

// twoGuests has another guest come, and at the end leave.
func twoGuests(l *lab, r sidebyside.Result) error {
	if !l.variant.ours {
		return nil
	}
	other, err := l.namespace("o")
	if err != nil {
		return err
	}
	relay, err := l.join(other, "5a:94:ef:e4:0c:ef")
	if relay != nil {
		defer relay.stop()
	}
	if err != nil {
		return err
	}
	alone := map[string]float64{}
	directions := map[string][]string{colAloneUp: nil, colAloneDown: {"-R"}}
	for column, flags := range directions {
		t, err := l.iperf(l.guestNS, iperfPort, flags...)
		if err != nil {
			return err
		}
		alone[column] = t.rate()
	}
	for column, flags := range map[string][]string{colFairUp: nil, colFairDown: {"-R"}} {
		var a, b transfer
		var g errgroup.Group
		g.Go(func() (err error) { a, err = l.iperf(l.guestNS, iperfPort, flags...); return err })
		g.Go(func() (err error) { b, err = l.iperf(other, otherIperfPort, flags...); return err })
		if err := g.Wait(); err != nil {
			return err
		}
		r[column] = min(a.rate(), b.rate()) / max(a.rate(), b.rate())
	}
	stop, err := l.stopInDownload(other, relay)
	if err != nil {
		return err
	}
	defer stop()
	for column, flags := range directions {
		t, err := l.iperf(l.guestNS, iperfPort, flags...)
		if err != nil {
			return fmt.Errorf("with the other stopped: %w", err)
		}
		r[column] = t.rate() / alone[column]
	}
	return nil
}

// stopInDownload stops a guest's relay when it has begun to receive at full rate.
func (l *lab) stopInDownload(netns string, relay *process) (end func(), err error) {
	before, err := relay.cpu()
	if err != nil {
		return nil, err
	}
	client, err := l.start(l.iperfCommand(netns, otherIperfPort, 1000, "-R"))
	if err != nil {
		return nil, err
	}
	err = await(l.ctx, "the other guest's download", func() bool {
		now, err := relay.cpu()
		return err != nil || (now-before).Milliseconds() >= 100
	})
	relay.signal(syscall.SIGSTOP)
	return client.stop, err
}

func behindGuest(l *lab, r sidebyside.Result) error {
	if l.host == nil {
		return nil
	}
	netns, err := l.container()
	if err != nil {
		return err
	}
	up, err := l.iperf(netns, iperfPort)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	r[colContUp], r[colContAgain] = up.rate(), up.retransmits
	down, err := l.iperf(netns, iperfPort, "-R")
	if err != nil {
		return fmt.Errorf("down: %w", err)
	}
	r[colContDown] = down.rate()
	return nil
}
