package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"vigil/infer/eval"
)

// chart is a drawing in data coordinates; svg.go and png.go render it alike.
type chart struct {
	name   string // of its files
	title  string
	x, y   axis
	series []series
	equal  bool // draw the line x = y
	legend bool
}

// axis maps values to 0..1 along its length.
type axis struct {
	label    string
	scale    func(v float64) float64 // to a straight line; monotone
	from, to float64                 // values at the two ends
	ticks    []tick
}

type tick struct {
	at    float64
	label string
}

// series is a line, or an area down to the bottom.
type series struct {
	label string
	x, y  []float64
	color int // of the palette
	dash  int // of the dashes
	area  bool
	marks bool
}

// pos is where a value lies along the axis: 0 to 1 inside, infinite where the scale is (a rate of 0).
func (a *axis) pos(v float64) float64 {
	lo, hi := a.scale(a.from), a.scale(a.to)
	return (a.scale(v) - lo) / (hi - lo)
}

// point is a place in the plot, both coordinates 0 to 1.
type point struct{ x, y float64 }

// lines are the parts of a series inside the plot. A point that has no place (a rate of 0 on a scale without one) ends a
// line.
func (c *chart) lines(s *series) [][]point {
	var out [][]point
	var line []point
	var last point
	has := false
	for i := range s.x {
		p := point{c.x.pos(s.x[i]), c.y.pos(s.y[i])}
		if math.IsInf(p.x, 0) || math.IsInf(p.y, 0) || math.IsNaN(p.x+p.y) {
			has = false
			continue
		}
		if a, b, ok := clip(last, p); has && ok && a != b {
			if n := len(line); n == 0 || line[n-1] != a {
				if n > 0 {
					out = append(out, line)
				}
				line = []point{a}
			}
			line = append(line, b)
		}
		last, has = p, true
	}
	if len(line) > 0 {
		out = append(out, line)
	}
	return out
}

// clip is the part of a segment inside the unit square; ok is false if there is none (Liang and Barsky 1984).
func clip(a, b point) (_, _ point, ok bool) {
	t0, t1 := 0.0, 1.0
	dx, dy := b.x-a.x, b.y-a.y
	for _, e := range [][2]float64{{-dx, a.x}, {dx, 1 - a.x}, {-dy, a.y}, {dy, 1 - a.y}} {
		switch p, q := e[0], e[1]; {
		case p == 0 && q < 0:
			return a, b, false
		case p < 0:
			t0 = max(t0, q/p)
		case p > 0:
			t1 = min(t1, q/p)
		}
	}
	if t0 > t1 {
		return a, b, false
	}
	from, to := a, b
	if t0 > 0 {
		from = point{a.x + t0*dx, a.y + t0*dy}
	}
	if t1 < 1 {
		to = point{a.x + t1*dx, a.y + t1*dy}
	}
	return from, to, true
}

// probit is the normal deviate of a rate, the scale of DET curves (Martin et al., "The DET curve in assessment of
// detection task performance", Eurospeech 1997).
func probit(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

func linear(v float64) float64 { return v }

// rateTicks are the values at which the axis of a rate may begin, end and carry a label.
var rateTicks = []float64{1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99}

// shareLabel rounds to a tenth of a percent.
func shareLabel(v float64) string {
	return strconv.FormatFloat(math.Round(v*1000)/10, 'g', 4, 64) + " %"
}

func rateLabel(v float64) string { return strconv.FormatFloat(v*100, 'g', 4, 64) + " %" }

// detAxis runs from a tick under the lowest positive rate to one over the highest that matters.
func detAxis(label string, lowest, highest float64) axis {
	a := axis{label: label, scale: probit, from: rateTicks[0], to: 0.4}
	for _, t := range rateTicks {
		if t <= lowest {
			a.from = t
		}
	}
	a.from = min(a.from, 0.01)
	for i := len(rateTicks) - 1; i >= 0 && rateTicks[i] >= highest; i-- {
		a.to = max(0.4, rateTicks[i])
	}
	for _, t := range rateTicks {
		if t >= a.from && t <= a.to {
			a.ticks = append(a.ticks, tick{t, rateLabel(t)})
		}
	}
	return a
}

// logAxis has a label at every power of ten; from and to are such.
func logAxis(label string, from, to float64, text func(float64) string) axis {
	a := axis{label: label, scale: math.Log10, from: from, to: to}
	for e := math.Round(math.Log10(from)); e <= math.Round(math.Log10(to)); e++ {
		v := math.Pow(10, e)
		a.ticks = append(a.ticks, tick{v, text(v)})
	}
	return a
}

// linearAxis has about five labels at round values.
func linearAxis(label string, from, to float64, text func(float64) string) axis {
	if !(to > from) {
		to = from + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((to-from)/5)))
	for _, f := range []float64{2, 2.5, 2} { // 2, 5, 10 times
		if (to-from)/step > 7 {
			step *= f
		}
	}
	a := axis{label: label, scale: linear, from: from, to: to}
	for k := math.Ceil(from/step - 1e-9); k*step <= to+step*1e-9; k++ {
		a.ticks = append(a.ticks, tick{k * step, text(k*step + 0)}) // + 0: no label -0
	}
	return a
}

// curve is one run's operating points.
type curve struct {
	name   string
	points []eval.Point
	eer    float64
}

// lowestPositive of the points' x or y.
func lowestPositive(curves []curve, value func(eval.Point) float64) float64 {
	low := 0.01
	for _, c := range curves {
		for _, p := range c.points {
			if v := value(p); v > 0 {
				low = min(low, v)
			}
		}
	}
	return low
}

func px(p eval.Point) float64 { return p.X }
func py(p eval.Point) float64 { return p.Y }

// detChart draws operating points on normal-deviate axes.
func detChart(name, title, xLabel, yLabel string, curves []curve) chart {
	high := 0.4
	for _, c := range curves {
		high = max(high, min(0.95, 1.3*c.eer))
	}
	c := chart{
		name: name, title: title, legend: true, equal: true,
		x: detAxis(xLabel, lowestPositive(curves, px), high), y: detAxis(yLabel, lowestPositive(curves, py), high),
	}
	for i, k := range curves {
		s := series{label: k.name, color: i, dash: i}
		for _, p := range k.points {
			s.x, s.y = append(s.x, p.X), append(s.y, p.Y)
		}
		c.series = append(c.series, s)
	}
	return c
}

// rocChart draws the true match rate over the logarithm of the false match rate.
func rocChart(name, title, xLabel, yLabel string, curves []curve) chart {
	low := math.Pow(10, math.Floor(math.Log10(lowestPositive(curves, px))))
	worst := 1.0 // true match rate at the left end
	c := chart{name: name, title: title, legend: true}
	for i, k := range curves {
		s := series{label: k.name, color: i, dash: i}
		for _, p := range k.points {
			s.x, s.y = append(s.x, p.X), append(s.y, 1-p.Y)
			if p.X >= low {
				worst = min(worst, 1-p.Y)
			}
		}
		c.series = append(c.series, s)
	}
	floor := max(0, math.Floor(worst*10-0.5)/10)
	if worst > 0.96 {
		floor = 0.9
	}
	c.x = logAxis(xLabel, low, 1, func(v float64) string { return rateLabel(v) })
	c.y = linearAxis(yLabel, floor, 1, shareLabel)
	return c
}

// histogramChart draws the two classes of one run, each as the share of its own count per bin.
func histogramChart(name, title, a, b string, h eval.Histogram) chart {
	high := 0.0
	shares := func(counts []int) (v []float64) {
		total := 0
		for _, n := range counts {
			total += n
		}
		for _, n := range counts {
			s := float64(n) / float64(max(1, total))
			v, high = append(v, s), max(high, s)
		}
		return v
	}
	sa, sb := shares(h.A), shares(h.B)
	c := chart{name: name, title: title, legend: true}
	for i, v := range [][]float64{sb, sa} {
		s := series{label: []string{b, a}[i], color: []int{1, 0}[i], dash: i, area: true}
		width := (h.High - h.Low) / float64(len(v))
		for k, share := range v {
			left := h.Low + float64(k)*width
			s.x, s.y = append(s.x, left, left+width), append(s.y, share, share)
		}
		c.series = append(c.series, s)
	}
	c.x = linearAxis("score", h.Low, h.High, func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) })
	c.y = linearAxis("share of each kind", 0, high*1.3, shareLabel) // room for the legend
	return c
}

// sizeChart draws FNIR over the size of the gallery: a colour per run, a dash per FPIR.
func sizeChart(name string, id *eval.Identification) chart {
	c := chart{name: name, title: "FNIR against gallery size", legend: true}
	most, least, high := 10.0, math.Inf(1), 0.0
	for i, r := range id.Runs {
		if len(r.Sizes) == 0 {
			continue
		}
		for k := range r.Sizes[0].Rates {
			s := series{label: fmt.Sprintf("%s, FPIR %s", r.Name, rateLabel(r.Sizes[0].Rates[k].Target)), color: i, dash: k, marks: true}
			for _, z := range r.Sizes {
				s.x, s.y = append(s.x, float64(z.Subjects)), append(s.y, z.Rates[k].FNIR.Value)
				most, least = max(most, float64(z.Subjects)), min(least, float64(z.Subjects))
				high = max(high, z.Rates[k].FNIR.Value)
			}
			c.series = append(c.series, s)
		}
	}
	from := math.Pow(10, math.Floor(math.Log10(min(least, most))))
	to := math.Pow(10, math.Ceil(math.Log10(most)))
	c.x = logAxis("enrolled subjects", from, to, func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) })
	room := 1.15 + 0.07*float64(len(c.series)) // for the legend, over all points
	c.y = linearAxis("FNIR", 0, max(0.05, high)*room, shareLabel)
	c.y.ticks = slices.DeleteFunc(c.y.ticks, func(t tick) bool { return t.at > 1+1e-9 })
	return c
}

// charts are those of a section.
func charts(s *eval.Section) []chart {
	var out []chart
	switch {
	case s.Verification != nil:
		var curves []curve
		for _, r := range s.Verification.Runs {
			curves = append(curves, curve{r.Name, r.DET, r.EER.Value})
		}
		out = append(out,
			detChart(s.Name+"-det", "DET: missed matches against false ones",
				"false match rate", "false non-match rate", curves),
			rocChart(s.Name+"-roc", "ROC: true matches against false ones",
				"false match rate", "true match rate", curves))
		for _, r := range s.Verification.Runs {
			out = append(out, histogramChart(scoresName(s, r.Name), "Scores of "+r.Name, "mated", "non-mated", r.Histogram))
		}
	case s.Identification != nil:
		var curves []curve
		for _, r := range s.Identification.Runs {
			curves = append(curves, curve{r.Name, r.Curve, 0.3})
		}
		out = append(out, sizeChart(s.Name+"-size", s.Identification),
			detChart(s.Name+"-det", "DET of the largest gallery",
				"false positive identification rate", "false negative identification rate", curves))
		for _, r := range s.Identification.Runs {
			out = append(out, histogramChart(scoresName(s, r.Name), "Best scores of "+r.Name, "mate", "stranger", r.Score))
		}
	case s.Attack != nil:
		var curves []curve
		for _, r := range s.Attack.Runs {
			curves = append(curves, curve{r.Name, r.Curve, r.EER})
		}
		out = append(out, detChart(s.Name+"-det", "DET: refused people against accepted attacks",
			"APCER, highest of the species", "BPCER", curves))
		for _, r := range s.Attack.Runs {
			out = append(out, histogramChart(scoresName(s, r.Name), "Scores of "+r.Name, "bona fide", "attack", r.Histogram))
		}
	}
	return out
}

// scoresName is the file name of a run's histogram.
func scoresName(s *eval.Section, run string) string { return s.Name + "-scores-" + fileName(run) }

// fileName keeps what is safe in a file's name.
func fileName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			b[i] = '-'
		}
	}
	return string(b)
}
