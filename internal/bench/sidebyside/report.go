// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package sidebyside

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Report is the outcome of a run. What is written of it depends on nothing else.
type Report struct {
	Title string `json:"title"`
	// About says where and how it was measured: a machine, versions, seconds.
	About map[string]string `json:"about,omitempty"`
	// Base is the variant that the others are compared with.
	Base     string   `json:"base"`
	Variants []string `json:"variants"`
	Columns  []Column `json:"columns"`
	// Figures has those of each column and variant that has any.
	Figures []Figures `json:"figures"`
}

// A Column is one kind of figure, under a name with its unit.
type Column struct {
	Name string `json:"name"`
	// Bare figures have no ratio to those of the base: they are shares themselves.
	Bare bool `json:"bare,omitempty"`
}

// Figures are those of one column and variant, in the order of the rounds.
type Figures struct {
	Column  string    `json:"column"`
	Variant string    `json:"variant"`
	Median  float64   `json:"median"`
	All     []float64 `json:"all"`
}

// Add takes in what [Run] returned. Four digits of it are kept: the fifth is noise.
func (r *Report) Add(results map[string][]Result) {
	for _, c := range r.Columns {
		for _, v := range r.Variants {
			f := Figures{Column: c.Name, Variant: v}
			for _, result := range results[v] {
				if x, ok := result[c.Name]; ok {
					f.All = append(f.All, round(x))
				}
			}
			if f.All != nil {
				f.Median = Percentile(slices.Clone(f.All), 50)
				r.Figures = append(r.Figures, f)
			}
		}
	}
}

func round(x float64) float64 {
	x, _ = strconv.ParseFloat(strconv.FormatFloat(x, 'g', 4, 64), 64)
	return x
}

// Median returns that of a column and variant, and whether it was measured.
func (r *Report) Median(column, variant string) (float64, bool) {
	for _, f := range r.Figures {
		if f.Column == column && f.Variant == variant {
			return f.Median, true
		}
	}
	return 0, false
}

// WriteTable writes the medians and their ratios to the base's, a row for each
// column that has any, in Markdown that is a table to the eye too.
func (r *Report) WriteTable(w io.Writer) error {
	rows := [][]string{append([]string{r.Title}, r.Variants...)}
	for _, c := range r.Columns {
		row, some := []string{c.Name}, false
		for _, v := range r.Variants {
			cell := "–"
			if m, ok := r.Median(c.Name, v); ok {
				cell, some = Number(m), true
				if b, ok := r.Median(c.Name, r.Base); ok && b != 0 && !c.Bare && v != r.Base {
					cell += " (" + Number(m/b) + "×)"
				}
			}
			row = append(row, cell)
		}
		if some {
			rows = append(rows, row)
		}
	}
	return writeMarkdown(w, rows)
}

func writeMarkdown(w io.Writer, rows [][]string) error {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b bytes.Buffer
	for n, row := range rows {
		for i, cell := range row {
			b.WriteString("| " + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+1))
		}
		b.WriteString("|\n")
		for i := 0; n == 0 && i < len(widths); i++ {
			b.WriteString("|" + strings.Repeat("-", widths[i]+2))
		}
		if n == 0 {
			b.WriteString("|\n")
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Number is x with about three digits.
func Number(x float64) string {
	switch a := math.Abs(x); {
	case a >= 99.95:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(x, 'f', 1, 64)
	default:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
}

// WriteJSON writes everything, the figures of each column and variant on one line,
// so that a change of them can be read.
func (r *Report) WriteJSON(w io.Writer) error {
	head := *r
	head.Figures = []Figures{}
	text, err := json.MarshalIndent(head, "", "  ")
	if err != nil {
		return fmt.Errorf("sidebyside: %w", err)
	}
	text = bytes.TrimSuffix(text, []byte("]\n}"))
	for i, f := range r.Figures {
		line, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("sidebyside: %w", err)
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(text, "\n    "...), line...)
	}
	_, err = w.Write(append(text, "\n  ]\n}\n"...))
	return err
}

// Read returns the report that [Report.WriteJSON] has written.
func Read(from io.Reader) (*Report, error) {
	r := &Report{}
	if err := json.NewDecoder(from).Decode(r); err != nil {
		return nil, fmt.Errorf("sidebyside: %w", err)
	}
	return r, nil
}
