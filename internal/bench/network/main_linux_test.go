// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

// TestMain is the load that a lab starts, if it is started so.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "load" {
		if err := load(context.Background(), os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func TestWrongCommandLines(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"argument":  {[]string{"more"}, `"more" is no flag`},
		"rounds":    {[]string{"-rounds", "0"}, "at least 1"},
		"seconds":   {[]string{"-seconds", "0"}, "at least 1"},
		"variant":   {[]string{"-only", "gvproxy,qemu"}, `no "qemu": use some of gvproxy,oldguest`},
		"column":    {[]string{"-columns", "sideways"}, `no "sideways": use some of up,down`},
		"no report": {[]string{"-from", "/nonexistent"}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, bench(t.Context(), c.args), c.says) })
	}
}

func TestChoiceKeepsTheOrder(t *testing.T) {
	chosen, err := choose(tests, "down,up")
	require.NoError(t, err)
	require.Equal(t, "up,down", keys(chosen))
	all, err := choose(tests, "")
	require.NoError(t, err)
	require.Equal(t, keys(tests), keys(all))
}

func TestEveryTestRunsOnce(t *testing.T) {
	require.Equal(t, "trip,connect,up,down,up4,down4,udp64,udp1400,guests,container,memory", keys(inOrder(tests)))
}

// A misspelt column would silently be missing from the chart or the goals.
func TestColumnsAndVariantsExist(t *testing.T) {
	columns, names := map[string]bool{"": true}, map[string]bool{}
	for _, test := range append([]test{always}, tests...) {
		for _, c := range test.columns {
			require.False(t, columns[c.Name], "%s is there twice", c.Name)
			columns[c.Name] = true
		}
	}
	for _, v := range variants {
		names[v.name] = true
	}
	for _, p := range panels {
		for _, bar := range p.Bars {
			require.True(t, columns[bar.Column], bar.Column)
		}
	}
	for _, g := range goals {
		require.True(t, columns[g.column] && columns[g.own], "%+v", g)
		for _, v := range append([]string{g.variant}, g.others...) {
			require.True(t, names[v], v)
		}
	}
	for _, v := range ours {
		require.True(t, names[v], v)
	}
}

func TestGoals(t *testing.T) {
	r := &sidebyside.Report{Variants: []string{"a", "b", "c"}, Columns: cols("x", "y")}
	r.Add(map[string][]sidebyside.Result{"a": {{"x": 12, "y": 6}}, "b": {{"x": 4}}, "c": {{"x": 3, "y": 0}}})
	for name, c := range map[string]struct {
		goal  goal
		want  float64
		known bool
	}{
		"absolute":       {goal{column: "x", variant: "a"}, 12, true},
		"of the most":    {goal{column: "x", variant: "a", others: []string{"c", "b", "d"}}, 3, true},
		"of the least":   {goal{column: "x", variant: "a", others: []string{"b", "c"}, atMost: true}, 4, true},
		"of another own": {goal{column: "x", variant: "a", own: "y"}, 2, true},
		"not measured":   {goal{column: "y", variant: "b"}, 0, false},
		"none of others": {goal{column: "x", variant: "a", others: []string{"d"}}, 0, false},
		"of nothing":     {goal{column: "x", variant: "c", own: "y"}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, known := c.goal.figure(r)
			require.Equal(t, c.known, known)
			if known {
				require.InDelta(t, c.want, got, 1e-9)
			}
		})
	}
}

func TestGoalsAreJudged(t *testing.T) {
	r := &sidebyside.Report{Variants: []string{offload}, Columns: cols(colBusy, colFairUp)}
	round := sidebyside.Result{colBusy: 100, colFairUp: 0.9}
	r.Add(map[string][]sidebyside.Result{offload: {round, round, round, round, round}})
	var b bytes.Buffer
	require.NoError(t, writeGoals(&b, r))
	judged := "met        0.90 ≥ 0.80  guestnet: 2 guests: up, slower/faster\n" +
		"NOT MET     100 ≤ 96.0  guestnet: host at ×4 MiB\n"
	require.Equal(t, judged, b.String())

	r.Figures = nil
	r.Add(map[string][]sidebyside.Result{offload: {round}})
	b.Reset()
	require.NoError(t, writeGoals(&b, r))
	require.Equal(t, "\nThe project's goals are for medians of 5 rounds (make bench); of 1 this says little:\n"+judged, b.String())
}

func TestLoad(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error)
	go func() { done <- echo(ctx, ln) }()
	idle, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	require.NoError(t, err)
	for what, want := range map[string][]string{"trips": {"p50", "p99"}, "connections": {"rate"}} {
		var b bytes.Buffer
		require.NoError(t, load(ctx, []string{what, ln.Addr().String(), "20"}, &b))
		var figures map[string]float64
		require.NoError(t, json.Unmarshal(b.Bytes(), &figures))
		require.Len(t, figures, len(want))
		for _, name := range want {
			require.Positive(t, figures[name], name)
		}
	}
	for name, args := range map[string][]string{"nothing": nil, "number": {"trips", "x", "many"}, "what": {"sing", ln.Addr().String(), "1"}} {
		require.Error(t, load(ctx, args, new(bytes.Buffer)), name)
	}
	cancel()
	require.NoError(t, <-done, "it ends though a client is still there")
	require.NoError(t, idle.Close())
}

// What README shows is what was measured, drawn as it is drawn today.
func TestPublishedChart(t *testing.T) {
	published, err := filepath.Glob("../../../docs/bench/network.json")
	require.NoError(t, err)
	for _, name := range published {
		out := filepath.Join(t.TempDir(), "again")
		require.NoError(t, redraw(io.Discard, name, out))
		for _, extension := range []string{".json", ".svg"} {
			want, err := os.ReadFile(out + extension)
			require.NoError(t, err)
			got, err := os.ReadFile(strings.TrimSuffix(name, ".json") + extension)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got), "draw it anew: bin/network -from docs/bench/network.json -out docs/bench/network")
		}
	}
}
