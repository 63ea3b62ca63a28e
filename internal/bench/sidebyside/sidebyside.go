// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package sidebyside measures programs that do the same job, alternating in one
// run, and sets the medians beside each other, as a table, as JSON and as a chart: on
// a machine that others use too, only such ratios mean something.
package sidebyside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
// happens to all of them, and says on standard error where it is. What fails is said
// there, and returned at the end beside the figures that there are; only the end of
// ctx ends the run.
func Run(ctx context.Context, rounds int, variants []Variant) (map[string][]Result, error) {
	results := map[string][]Result{}
	var errs []error
	for round := range rounds {
		for _, v := range variants {
			if ctx.Err() != nil {
				return results, errors.Join(append(errs, ctx.Err())...)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, rounds, v.Name)
			r, err := v.Measure(ctx)
			if err != nil {
				err = fmt.Errorf("round %d: %s: %w", round+1, v.Name, err)
				fmt.Fprintln(os.Stderr, err)
				errs = append(errs, err)
			}
			results[v.Name] = append(results[v.Name], r)
		}
	}
	return results, errors.Join(errs...)
}

// Print writes a table of the medians, and of their ratios to those of the variant
// named base; or every figure as JSON.
func Print(w io.Writer, title string, results map[string][]Result, variants []Variant, columns []string, base string, asJSON bool) error {
	r := Report{Title: title, Base: base}
	for _, v := range variants {
		r.Variants = append(r.Variants, v.Name)
	}
	for _, c := range columns {
		r.Columns = append(r.Columns, Column{Name: c})
	}
	r.Add(results)
	if asJSON {
		return r.WriteJSON(w)
	}
	return r.WriteTable(w)
}

// Percentile returns the p-th percentile of some figures, which it sorts.
func Percentile(v []float64, p int) float64 {
	slices.Sort(v)
	return v[min(len(v)*p/100, len(v)-1)]
}
