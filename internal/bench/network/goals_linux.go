// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

// The chart.
var panels = []sidebyside.Panel{
	{Title: "TCP, one connection, Gbit/s", Bars: updown(colUp, colDown)},
	{Title: "The same from a container behind the guest", Bars: updown(colContUp, colContDown)},
	{Title: "CPU of the host's process, ms per Gbit (less is better)", Bars: updown(colHostUp, colHostDown)},
	{Title: "UDP, packets of 64 bytes, thousands per second", Bars: updown(colUDP64, colUDP64Down)},
	{Title: "Round trip of 1 byte, µs (less is better)", Bars: []sidebyside.Bar{{Label: "median", Column: colTrip}, {Label: "99 %", Column: colTrip99}}},
	{Title: "New connections per second", Bars: []sidebyside.Bar{{Label: "4 at a time", Column: colConnect}}},
}

func updown(up, down string) []sidebyside.Bar {
	return []sidebyside.Bar{{Label: "guest to host", Column: up}, {Label: "host to guest", Column: down}}
}

// A goal bounds a variant's median; or its ratio to the best of others', or to
// another median of its own.
type goal struct {
	column, variant string
	others          []string
	own             string
	atMost          bool
	bound           float64
}

const (
	offload  = "guestnet"
	oldGuest = "guestnet + gvforwarder"
	released = "gvproxy + gvforwarder"
	kernel   = "kernel loopback"
)

var peers = []string{"slirp4netns 1500", "slirp4netns 65520", "pasta 1500", "pasta 65520"}

var goals = []goal{
	{column: colUp, variant: offload, others: []string{kernel}, bound: 0.4},
	{column: colDown, variant: offload, others: []string{kernel}, bound: 0.4},
	{column: colHostUp, variant: offload, others: []string{released}, atMost: true, bound: 1. / 3},
	{column: colHostDown, variant: offload, others: []string{released}, atMost: true, bound: 1. / 3},
	{column: colUp, variant: offload, others: []string{released}, bound: 8},
	{column: colDown, variant: offload, others: []string{released}, bound: 10},
	{column: colUp, variant: offload, others: peers, bound: 1},
	{column: colDown, variant: offload, others: peers, bound: 1},
	{column: colContUp, variant: offload, own: colUp, bound: 0.9},
	{column: colContDown, variant: offload, own: colDown, bound: 0.9},
	{column: colUp, variant: oldGuest, others: []string{released}, bound: 2},
	{column: colDown, variant: oldGuest, others: []string{released}, bound: 2},
	{column: colUp4, variant: offload, own: colUp, bound: 1},
	{column: colDown4, variant: offload, own: colDown, bound: 1},
	{column: colFairUp, variant: offload, bound: 0.8},
	{column: colFairDown, variant: offload, bound: 0.8},
	{column: colAloneUp, variant: offload, bound: 0.9},
	{column: colAloneDown, variant: offload, bound: 0.9},
	{column: colTrip, variant: offload, others: []string{released}, atMost: true, bound: 1.1},
	{column: colTrip99, variant: offload, others: []string{released}, atMost: true, bound: 1.2},
	{column: colConnect, variant: offload, others: []string{released}, bound: 2},
	{column: colUDP64, variant: offload, others: []string{released}, bound: 2},
	{column: colUDP64Down, variant: offload, others: []string{released}, bound: 2},
	{column: colUDP14, variant: offload, others: []string{released}, bound: 2},
	{column: colUDP14Down, variant: offload, others: []string{released}, bound: 2},
	{column: colIdle, variant: offload, atMost: true, bound: 8},
	{column: colBusy, variant: offload, atMost: true, bound: 96},
}

// figure returns what is bounded, if all that it takes was measured.
func (g goal) figure(r *sidebyside.Report) (float64, bool) {
	m, ok := r.Median(g.column, g.variant)
	if g.own != "" {
		to, known := r.Median(g.own, g.variant)
		return m / to, ok && known && to != 0
	}
	if g.others == nil {
		return m, ok
	}
	best, known := 0.0, false
	for _, v := range g.others {
		o, measured := r.Median(g.column, v)
		if measured && (!known || g.atMost == (o < best)) {
			best, known = o, true
		}
	}
	return m / best, ok && known && best != 0
}

// goalRounds is how many rounds make a median that goals are judged by.
const goalRounds = 5

// writeGoals says how far each goal is met that was measured.
func writeGoals(w io.Writer, r *sidebyside.Report) error {
	rounds := 0
	for _, f := range r.Figures {
		rounds = max(rounds, len(f.All))
	}
	if rounds < goalRounds {
		if _, err := fmt.Fprintf(w, "\nThe project's goals are for medians of %d rounds (make bench); of %d this says little:\n", goalRounds, rounds); err != nil {
			return err
		}
	}
	for _, g := range goals {
		x, ok := g.figure(r)
		if !ok {
			continue
		}
		verdict, sign := "met", "≥"
		if g.atMost {
			sign = "≤"
		}
		if g.atMost && x > g.bound || !g.atMost && x < g.bound {
			verdict = "NOT MET"
		}
		to := g.own
		if g.others != nil {
			to = strings.Join(g.others, ", ")
		}
		if to != "" {
			to = ", to " + to
		}
		if _, err := fmt.Fprintf(w, "%-8s %6s %s %-5s %s: %s%s\n", verdict, sidebyside.Number(x), sign, sidebyside.Number(g.bound), g.variant, g.column, to); err != nil {
			return err
		}
	}
	return nil
}
