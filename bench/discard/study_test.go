package main

import (
	"math"
	"slices"
	"testing"
)

// TestLeft counts by hand: 20 comparisons, 4 errors.
func TestLeft(t *testing.T) {
	s := study{measures: []string{"right", "nothing", "wrong"}}
	for i := range 20 {
		score, wrong := 1.0, -1.0
		if i < 4 {
			score, wrong = 0, 1
		}
		v := float64(i)
		s.pictures = append(s.pictures, shown{good: []float64{v, 7, wrong}}, shown{good: []float64{v + 1, 7, wrong}})
		s.pairs = append(s.pairs, mated{2 * i, 2*i + 1, score})
	}
	for m, want := range [][]float64{{0.2, 3. / 19, 2. / 18, 0}, {0.2, 0.2, 0.2, 0.2}, {0.2, 4. / 19, 4. / 18, 0.25}} {
		got, deviations := s.left(m, 0.5)
		if slices.EqualFunc(got, want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) == false {
			t.Errorf("%s: %v, want %v", s.measures[m], got, want)
		}
		if sign := []float64{1, 0, -1}[m]; deviations*sign < 0 || sign == 0 && math.Abs(deviations) > 1e-9 {
			t.Errorf("%s: %v deviations", s.measures[m], deviations)
		}
	}
	s.pictures[39].good = nil // no template: worse than all
	s.pairs[19].score = math.Inf(-1)
	if got, _ := s.left(0, 0.5); math.Abs(got[1]-4./19) > 1e-9 {
		t.Errorf("the failure was not discarded first: %v", got)
	}
}
