package eval

import (
	"math"
	"slices"
)

// curvePoints is about how many points of each distribution a curve keeps; small sets keep all of theirs.
const curvePoints = 200

// det are operating points (FMR, FNMR) from low to high thresholds, thinned by the logarithm of how many scores lie
// beyond, so that both ends keep their detail.
func (s *set) det() []Point {
	var ts []float64
	for _, d := range []*dist{&s.mated, &s.non} {
		first := d.below(math.Inf(-1)) // those without a score are no thresholds
		n := len(d.v) - first
		for _, k := range logRanks(n) {
			ts = append(ts, d.v[first+k], d.v[first+n-1-k])
		}
	}
	ts = append(ts, s.over())
	slices.Sort(ts)
	ts = slices.Compact(ts)
	var out []Point
	for _, t := range ts {
		p := Point{X: s.fmr(t), Y: s.fnmr(t), Threshold: t}
		if n := len(out); n >= 2 && out[n-1].X == p.X && out[n-2].X == p.X || n >= 2 && out[n-1].Y == p.Y && out[n-2].Y == p.Y {
			out[n-1] = p // the middle of a straight step
			continue
		}
		out = append(out, p)
	}
	return out
}

// logRanks are ranks from 0 to n-1, all of them if they are few, else at equal steps of the logarithm.
func logRanks(n int) []int {
	var out []int
	last := -1
	for i := 0; i <= curvePoints && n > 0; i++ {
		k := int(math.Round(math.Exp(math.Log(float64(n)) * float64(i) / curvePoints)))
		if n <= curvePoints {
			k = i + 1
		}
		if k = min(k, n) - 1; k > last {
			out = append(out, k)
			last = k
		}
	}
	return out
}
