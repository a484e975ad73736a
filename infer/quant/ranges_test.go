package quant

import (
	"math"
	"testing"
)

func histogramOf(values ...float32) *histogram {
	h := &histogram{}
	h.limits(values)
	h.count(values)
	return h
}

// long has a body of 0..1 and one value far out.
func long() *histogram {
	var v []float32
	for i := range 100_000 {
		v = append(v, float32(i%1000)/1000)
	}
	return histogramOf(append(v, 50)...)
}

func TestMethodsChooseRanges(t *testing.T) {
	for _, c := range []struct {
		o         Options
		low, high float64 // limits of the upper end
	}{
		{Options{Method: MinMax}, 49.9, 50.1},
		{Options{Method: Percentile, Percentile: 0.999}, 0.9, 1.2},
		{Options{Method: Percentile, Percentile: 1}, 49.9, 50.1},
		{Options{Method: Entropy}, 0.9, 10},
	} {
		for _, signed := range []bool{false, true} {
			g, err := c.o.choose(long(), signed)
			if err != nil {
				t.Fatal(err)
			}
			if g.high() < c.low || g.high() > c.high || signed && (g.zero != 0 || g.low() != -g.high()) || !signed && g.low() != 0 {
				t.Errorf("%+v signed %v: %v..%v, want an end of %v to %v", c.o, signed, g.low(), g.high(), c.low, c.high)
			}
		}
	}
	best := long().leastError(false)
	if e, all := long().squaredError(best), long().squaredError(asymmetric(0, 50)); e > all {
		t.Errorf("mse: error %v of %v..%v is over that of the whole range, %v", e, best.low(), best.high(), all)
	}
}

func TestGridsKeepZeroAndEnds(t *testing.T) {
	for _, c := range [][2]float64{{-1, 3}, {0, 6}, {-5, -1}, {2, 4}, {0, 0}, {-1e-30, 1e-30}, {-127, 128}, {-1e30, 1e30}} {
		g := asymmetric(c[0], c[1])
		if g.round(0) != 0 || g.zero < 0 || g.zero > 255 || !(g.scale > 0) || math.IsInf(g.scale, 0) {
			t.Errorf("%v: %+v rounds 0 to %v", c, g, g.round(0))
		}
		for _, x := range c {
			if d := math.Abs(g.round(x) - x); d > g.scale*1.01 {
				t.Errorf("%v: %v becomes %v, steps are %v", c, x, g.round(x), g.scale)
			}
		}
	}
}

func TestHistogramRefusesWhatIsNoNumber(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		h := &histogram{}
		if h.limits([]float32{1, bad, 2}) {
			t.Errorf("%v was taken", bad)
		}
	}
	a, b := histogramOf(-1, 0, 2), histogramOf(5, 5)
	if m := a.merge(b); m.lo != -1 || m.hi != 5 || m.total != 4 || m.zeros != 1 {
		t.Errorf("merged %+v", m)
	}
}
