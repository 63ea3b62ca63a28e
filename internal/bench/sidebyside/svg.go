// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package sidebyside

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
)

// A Panel of a chart has a row for each variant, and in it a bar for each of at
// most two columns, on one scale.
type Panel struct {
	Title string
	Bars  []Bar
}

// A Bar is a column under the name that the legend has for it.
type Bar struct{ Label, Column string }

// The layout, in pixels. What is measured changes the lengths of the bars alone.
const (
	panelWidth = 440
	labelWidth = 165
	valueWidth = 45
	barHeight  = 11
	rowGap     = 8
	headHeight = 46
	margin     = 20
)

// The colours go with the reader's: GitHub's own, light and dark, on a ground of
// their own, because a page's need not be the system's.
const style = `<style>
text{font:11px -apple-system,"Segoe UI","Noto Sans",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:13px;font-weight:600}.ours{font-weight:700}.value{font-size:10px;fill:#59636e}.dim{fill:#59636e}
.ground{fill:#fff}.a{fill:#0969da}.b{fill:#bc4c00}.axis{stroke:#d1d9e0}
@media(prefers-color-scheme:dark){
text{fill:#f0f6fc}.dim,.value{fill:#9198a1}
.ground{fill:#0d1117}.a{fill:#4493f8}.b{fill:#db6d28}.axis{stroke:#3d444d}
}
</style>
`

// WriteSVG draws the medians, two panels beside each other. The names of the
// variants in ours are bold.
func (r *Report) WriteSVG(w io.Writer, panels []Panel, ours ...string) error {
	bold := map[string]bool{}
	for _, v := range ours {
		bold[v] = true
	}
	var b bytes.Buffer
	y, low := margin, 0
	for i, p := range panels {
		if i%2 == 0 {
			y, low = max(y, low), 0
		}
		low = max(low, r.draw(&b, p, bold, margin+i%2*(panelWidth+margin), y))
	}
	width, height := 2*panelWidth+3*margin, max(y, low)
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" role="img" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d">
<title>%[3]s</title>
%[4]s<rect class="ground" width="%[1]d" height="%[2]d" rx="6"/>
%[5]s</svg>
`, width, height, escape(r.Title), style, &b)
	return err
}

// draw returns where the panel ends.
func (r *Report) draw(b *bytes.Buffer, p Panel, bold map[string]bool, x, y int) int {
	text := func(class, anchor string, x, y int, s string) {
		fmt.Fprintf(b, `<text class="%s" text-anchor="%s" x="%d" y="%d">%s</text>`+"\n", class, anchor, x, y, escape(s))
	}
	text("title", "start", x, y+12, p.Title)
	left := x + labelWidth
	most := 0.0
	for i, bar := range p.Bars {
		at := left + i*115
		fmt.Fprintf(b, `<rect class="%c" x="%d" y="%d" width="9" height="9" rx="2"/>`+"\n", 'a'+i, at, y+22)
		text("dim", "start", at+14, y+30, bar.Label)
		for _, v := range r.Variants {
			m, _ := r.Median(bar.Column, v)
			most = max(most, m)
		}
	}
	y += headHeight
	top := y
	for _, v := range r.Variants {
		class := "name"
		if bold[v] {
			class = "ours"
		}
		text(class, "end", left-8, y+(barHeight*len(p.Bars))/2+4, v)
		for i, bar := range p.Bars {
			value, length := "–", 0.0
			if m, ok := r.Median(bar.Column, v); ok && most > 0 {
				value, length = Number(m), m/most*(panelWidth-labelWidth-valueWidth)
			}
			at := y + i*barHeight
			fmt.Fprintf(b, `<rect class="%c" x="%d" y="%d" width="%.1f" height="%d"/>`+"\n", 'a'+i, left, at, length, barHeight-1)
			text("value", "start", left+int(length)+5, at+barHeight-2, value)
		}
		y += barHeight*len(p.Bars) + rowGap
	}
	fmt.Fprintf(b, `<line class="axis" x1="%[1]d" y1="%[2]d" x2="%[1]d" y2="%[3]d"/>`+"\n", left, top-3, y-rowGap+2)
	return y + margin
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer takes everything
	return b.String()
}
