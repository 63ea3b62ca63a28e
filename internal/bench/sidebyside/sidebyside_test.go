// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package sidebyside_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rancher-sandbox/guestnet/internal/bench/sidebyside"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// variant counts up from a figure, and fails in the rounds given.
func variant(name string, order *[]string, figure float64, failing ...int) sidebyside.Variant {
	round := -1
	return sidebyside.Variant{Name: name, Measure: func(context.Context) (sidebyside.Result, error) {
		round++
		*order = append(*order, name)
		if slices.Contains(failing, round) {
			return nil, errors.New("no luck")
		}
		return sidebyside.Result{"x": figure + float64(round)}, nil
	}}
}

func TestRunAlternates(t *testing.T) {
	var order []string
	results, err := sidebyside.Run(t.Context(), 2, []sidebyside.Variant{variant("a", &order, 1), variant("b", &order, 10)})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "a", "b"}, order)
	require.Equal(t, map[string][]sidebyside.Result{"a": {{"x": 1}, {"x": 2}}, "b": {{"x": 10}, {"x": 11}}}, results)
}

func TestRunGoesOnAfterAFailure(t *testing.T) {
	var order []string
	results, err := sidebyside.Run(t.Context(), 3, []sidebyside.Variant{variant("a", &order, 1, 1)})
	require.ErrorContains(t, err, "round 2: a: no luck")
	require.Equal(t, []sidebyside.Result{{"x": 1}, nil, {"x": 3}}, results["a"])
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := sidebyside.Variant{Name: "a", Measure: func(context.Context) (sidebyside.Result, error) {
		cancel()
		return sidebyside.Result{"x": 1}, nil
	}}
	results, err := sidebyside.Run(ctx, 5, []sidebyside.Variant{ended})
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, results["a"], 1)
}

func report() *sidebyside.Report {
	r := &sidebyside.Report{
		Title: "both & <all>", About: map[string]string{"cores": "2"}, Base: "old",
		Variants: []string{"old", "new"},
		Columns:  []sidebyside.Column{{Name: "up"}, {Name: "lost %", Bare: true}, {Name: "µs"}, {Name: "never"}},
	}
	r.Add(map[string][]sidebyside.Result{
		"old": {{"up": 2, "lost %": 3}, {"up": 1.23456789}, {"up": 4}},
		"new": {{"up": 30, "lost %": 6, "µs": 123.4}},
	})
	return r
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, report().WriteTable(&b))
	require.Equal(t, strings.TrimLeft(`
| both & <all> | old  | new          |
|--------------|------|--------------|
| up           | 2.00 | 30.0 (15.0×) |
| lost %       | 3.00 | 6.00         |
| µs           | –    | 123          |
`, "\n"), b.String())
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, report().WriteJSON(&b))
	require.Contains(t, b.String(), "\n"+`    {"column":"up","variant":"old","median":2,"all":[2,1.235,4]},`+"\n", "four digits, one line")
	read, err := sidebyside.Read(bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	require.Equal(t, report(), read)

	b.Reset()
	require.NoError(t, (&sidebyside.Report{}).WriteJSON(&b))
	read, err = sidebyside.Read(&b)
	require.NoError(t, err, "no figures at all")
	require.Empty(t, read.Figures)

	_, err = sidebyside.Read(strings.NewReader("{"))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestChart(t *testing.T) {
	panels := []sidebyside.Panel{
		{Title: "a < b", Bars: []sidebyside.Bar{{Label: "up", Column: "up"}, {Label: "trip", Column: "µs"}}},
		{Title: "nobody's", Bars: []sidebyside.Bar{{Label: "never", Column: "never"}}},
	}
	var b, again bytes.Buffer
	require.NoError(t, report().WriteSVG(&b, panels, "new"))
	require.NoError(t, report().WriteSVG(&again, panels, "new"))
	require.Equal(t, b.String(), again.String(), "the same figures, the same picture")
	svg := b.String()
	require.Contains(t, svg, "prefers-color-scheme:dark")
	require.Contains(t, svg, "<title>both &amp; &lt;all&gt;</title>")
	require.Contains(t, svg, ">a &lt; b</text>")
	require.Regexp(t, `class="ours"[^>]*>new<`, svg)
	require.Regexp(t, `class="name"[^>]*>old<`, svg)

	// Bars are as long as the figures are large: 230 pixels for the largest.
	var widths []string
	decoder := xml.NewDecoder(&b)
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, "well-formed")
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "rect" {
			continue
		}
		for _, a := range start.Attr {
			if a.Name.Local == "width" && strings.Contains(a.Value, ".") {
				widths = append(widths, a.Value)
			}
		}
	}
	require.Equal(t, []string{"3.7", "0.0", "55.9", "230.0", "0.0", "0.0"}, widths)
}

func TestPrint(t *testing.T) {
	results := map[string][]sidebyside.Result{"a": {{"x": 1}}, "b": {{"x": 2}}}
	variants := []sidebyside.Variant{{Name: "a"}, {Name: "b"}}
	var table, all bytes.Buffer
	require.NoError(t, sidebyside.Print(&table, "t", results, variants, []string{"x"}, "a", false))
	require.Contains(t, table.String(), "| x | 1.00 | 2.00 (2.00×) |")
	require.NoError(t, sidebyside.Print(&all, "t", results, variants, []string{"x"}, "a", true))
	require.Contains(t, all.String(), `"all":[2]`)
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0: "0.00", 0.126: "0.13", 9.994: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 12345.6: "12346"} {
		require.Equal(t, want, sidebyside.Number(x))
	}
}

func TestPercentile(t *testing.T) {
	for name, c := range map[string]struct {
		of   []float64
		p    int
		want float64
	}{
		"one":               {[]float64{7}, 50, 7},
		"median":            {[]float64{3, 1, 2}, 50, 2},
		"median of an even": {[]float64{4, 1, 3, 2}, 50, 3},
		"99 of few":         {[]float64{1, 2, 3}, 99, 3},
		"all":               {[]float64{2, 1}, 100, 2},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, sidebyside.Percentile(c.of, c.p)) })
	}
}
