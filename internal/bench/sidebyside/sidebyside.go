// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package sidebyside measures programs that do the same job, alternating in one
// run, and prints the medians beside each other: on a machine that others use too,
// only such ratios mean something.
package sidebyside

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Variant is one of the programs.
type Variant struct {
	Name    string
	Measure func(context.Context) (Result, error)
}

// A Result is what one variant did in one round, by column. What was not measured
// is left out.
type Result map[string]float64

// Run measures every variant once a round, so that what the machine does meanwhile
// happens to all of them, and says on standard error where it is.
func Run(ctx context.Context, rounds int, variants []Variant) (map[string][]Result, error) {
	results := map[string][]Result{}
	for round := range rounds {
		for _, v := range variants {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, rounds, v.Name)
			r, err := v.Measure(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", v.Name, err)
			}
			results[v.Name] = append(results[v.Name], r)
		}
	}
	return results, nil
}

// Print writes a table of the medians, and of their ratios to those of the variant
// named base; or every figure as JSON.
func Print(w io.Writer, title string, results map[string][]Result, variants []Variant, columns []string, base string, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(map[string]any{"title": title, "results": results})
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, title+"\t"+strings.Join(columns, "\t"))
	for _, v := range variants {
		row := []string{v.Name}
		for _, c := range columns {
			row = append(row, cell(results[v.Name], results[base], c))
		}
		_, _ = fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func cell(rs, base []Result, column string) string {
	m, ok := median(rs, column)
	if !ok {
		return "-"
	}
	if b, ok := median(base, column); ok && b != 0 {
		return fmt.Sprintf("%.4g (%.2f×)", m, m/b)
	}
	return fmt.Sprintf("%.4g", m)
}

func median(rs []Result, column string) (float64, bool) {
	var v []float64
	for _, r := range rs {
		if f, ok := r[column]; ok {
			v = append(v, f)
		}
	}
	if len(v) == 0 {
		return 0, false
	}
	return Percentile(v, 50), true
}

// Percentile returns the p-th percentile of some figures, which it sorts.
func Percentile(v []float64, p int) float64 {
	slices.Sort(v)
	return v[min(len(v)*p/100, len(v)-1)]
}
