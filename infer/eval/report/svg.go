package report

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"strings"
)

// Size of a chart and of its margins, in pixels of the drawing.
const (
	width, height            = 520, 400
	left, right, top, bottom = 66, 26, 34, 50
)

// dashes tell series apart without colour.
var dashes = [][]float64{nil, {7, 4}, {2, 3}, {9, 3, 2, 3}, {4, 2}, {12, 4}}

// chartStyle draws charts inside the page and in files of their own, in light and dark.
const chartStyle = `.chart{--paper:#fff;--ink:#1d2430;--soft:#5b6575;--grid:#e3e7ed;--s0:#0b62a8;--s1:#c2540a;--s2:#14795a;--s3:#8a3f91;--s4:#7a6a00;--s5:#9b2242;font-family:system-ui,"Helvetica Neue",Arial,sans-serif;font-size:12px}
@media (prefers-color-scheme:dark){.chart{--paper:#12161d;--ink:#e7eaf0;--soft:#a3adbd;--grid:#2c333f;--s0:#6cb4f5;--s1:#f59c5b;--s2:#57cfa5;--s3:#d596dc;--s4:#d9c95a;--s5:#f08aa3}}
@media print{.chart{--paper:#fff;--ink:#000;--soft:#333;--grid:#ddd;--s0:#0b62a8;--s1:#c2540a;--s2:#14795a;--s3:#8a3f91;--s4:#7a6a00;--s5:#9b2242}}
.chart text{fill:var(--soft)}.chart .title{fill:var(--ink);font-size:14px;font-weight:600}.chart .grid{stroke:var(--grid);stroke-width:1}.chart .frame{fill:none;stroke:var(--soft);stroke-width:1}.chart .equal{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4}.chart .line{fill:none;stroke-width:2;stroke-linejoin:round}.chart .key{fill:var(--paper);fill-opacity:.85}.chart .area{fill-opacity:.22;stroke-width:1.5;stroke-linejoin:round}
`

// svg writes the chart; own says that it is a file of its own and carries the style.
func (c *chart) svg(w io.Writer, own bool) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 %d %d" role="img" aria-label=%q>`, width, height, html.EscapeString(c.title))
	if own {
		fmt.Fprintf(&b, "<style>%s@media (prefers-color-scheme:dark){svg.chart{background:#12161d}}</style>", chartStyle)
	}
	fmt.Fprintf(&b, "\n<text class=\"title\" x=\"%d\" y=\"20\">%s</text>\n", left, html.EscapeString(c.title))
	c.grid(&b)
	drawn := 0
	for i := range c.series {
		drawn += len(c.lines(&c.series[i]))
		c.draw(&b, &c.series[i])
	}
	if drawn == 0 {
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">no error of both kinds at any one threshold</text>\n", left+plotW/2, top+plotH/2)
	}
	fmt.Fprintf(&b, `<rect class="frame" x="%d" y="%d" width="%d" height="%d"/>`+"\n", left, top, plotW, plotH)
	if c.legend {
		c.key(&b)
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

const plotW, plotH = width - left - right, height - top - bottom

// at is the place of a point of the data.
func (c *chart) at(x, y float64) (float64, float64) {
	return left + plotW*c.x.pos(x), top + plotH*(1-c.y.pos(y))
}

func (c *chart) grid(b *bytes.Buffer) {
	last := -1e9
	for _, t := range c.x.ticks {
		x, _ := c.at(t.at, c.y.from)
		fmt.Fprintf(b, `<path class="grid" d="M%.1f %dV%d"/>`, x, top, top+plotH)
		if half := 3.2 * float64(len(t.label)); x-half > last { // labels do not touch
			fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x, top+plotH+17, html.EscapeString(t.label))
			last = x + half + 4
		}
	}
	b.WriteByte('\n')
	low := 1e9
	for _, t := range c.y.ticks {
		_, y := c.at(c.x.from, t.at)
		fmt.Fprintf(b, `<path class="grid" d="M%d %.1fH%d"/>`, left, y, left+plotW)
		if y < low-12 {
			fmt.Fprintf(b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`, left-7, y+4, html.EscapeString(t.label))
			low = y
		}
	}
	if c.equal {
		x0, y0 := c.at(max(c.x.from, c.y.from), max(c.x.from, c.y.from))
		x1, y1 := c.at(min(c.x.to, c.y.to), min(c.x.to, c.y.to))
		fmt.Fprintf(b, `<path class="equal" d="M%.1f %.1fL%.1f %.1f"/>`, x0, y0, x1, y1)
	}
	fmt.Fprintf(b, "\n<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>", left+plotW/2, height-12, html.EscapeString(c.x.label))
	fmt.Fprintf(b, "<text transform=\"translate(14 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", top+plotH/2, html.EscapeString(c.y.label))
}

func dashText(i int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(dashes[i%len(dashes)]), " ", ","), "[]")
}

func (c *chart) draw(b *bytes.Buffer, s *series) {
	color := fmt.Sprintf("var(--s%d)", s.color%6)
	for _, line := range c.lines(s) {
		var d strings.Builder
		for i, p := range line {
			op := 'L'
			if i == 0 {
				op = 'M'
			}
			fmt.Fprintf(&d, "%c%.1f %.1f", op, left+plotW*p.x, top+plotH*(1-p.y))
		}
		if s.area {
			x0, x1 := left+plotW*line[0].x, left+plotW*line[len(line)-1].x
			fmt.Fprintf(b, `<path class="area" style="fill:%s;stroke:%s" stroke-dasharray="%s" d="%sL%.1f %dL%.1f %dZ"/>`,
				color, color, dashText(s.dash), d.String(), x1, top+plotH, x0, top+plotH)
			continue
		}
		fmt.Fprintf(b, `<path class="line" style="stroke:%s" stroke-dasharray="%s" d="%s"/>`, color, dashText(s.dash), d.String())
	}
	for i := range s.x {
		if s.marks {
			x, y := c.at(s.x[i], s.y[i])
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" style="fill:%s"/>`, x, y, color)
		}
	}
	b.WriteByte('\n')
}

// key is the legend, in the upper right corner (DET curves and histograms are low there) or the lower right one, where a
// ROC is high.
func (c *chart) key(b *bytes.Buffer) {
	longest := 0
	for _, s := range c.series {
		longest = max(longest, len([]rune(s.label)))
	}
	w, h := 44+int(6.4*float64(longest)), 8+17*len(c.series)
	x, y := left+plotW-w-8, top+8
	if c.keyLow() {
		y = top + plotH - h - 8
	}
	fmt.Fprintf(b, `<rect class="key" x="%d" y="%d" width="%d" height="%d"/>`, x, y, w, h)
	for i, s := range c.series {
		ly := y + 13 + 17*i
		fmt.Fprintf(b, `<path class="line" style="stroke:var(--s%d)" stroke-dasharray="%s" d="M%d %dh26"/>`, s.color%6, dashText(s.dash), x+6, ly)
		fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`, x+38, ly+4, html.EscapeString(s.label))
	}
	b.WriteByte('\n')
}

// keyLow says that the lower right corner is the emptier one: fewer points of the series lie there.
func (c *chart) keyLow() bool {
	high, low := 0, 0
	for _, s := range c.series {
		for i := range s.x {
			x, y := c.x.pos(s.x[i]), c.y.pos(s.y[i])
			if x > 0.5 && x < 1 && y > 0.6 {
				high++
			}
			if x > 0.5 && x < 1 && y < 0.4 && !s.area {
				low++
			}
		}
	}
	return low < high && !c.series[0].area
}
