package eval

import (
	"math"
	"slices"
	"sort"
)

// NoScore is the score of a comparison that could not be made: below every threshold.
const NoScore = float32(-2)

// Scores are the outcomes of comparisons, mated (of one person) and non-mated. Sort them before asking for rates.
type Scores struct {
	Mated, NonMated []float32
}

// Sort brings both lists into ascending order, which the rates rely on.
func (s *Scores) Sort() {
	slices.Sort(s.Mated)
	slices.Sort(s.NonMated)
}

func (s *Scores) add(mated bool, v float32) {
	if mated {
		s.Mated = append(s.Mated, v)
	} else {
		s.NonMated = append(s.NonMated, v)
	}
}

// below counts the sorted scores under the threshold; NoScore is under every one.
func below(sorted []float32, threshold float32) int {
	return sort.Search(len(sorted), func(i int) bool { return sorted[i] > NoScore && sorted[i] >= threshold })
}

// FMR is the false match rate at a threshold: the share of non-mated scores at or over it (ISO/IEC 19795-1).
func (s *Scores) FMR(threshold float32) float64 {
	n := len(s.NonMated)
	return float64(n-below(s.NonMated, threshold)) / float64(n)
}

// FNMR is the false non-match rate at a threshold: the share of mated scores under it. A comparison that could not be
// made counts as a non-match.
func (s *Scores) FNMR(threshold float32) float64 {
	return float64(below(s.Mated, threshold)) / float64(len(s.Mated))
}

// Accuracy is the share of right answers at a threshold.
func (s *Scores) Accuracy(threshold float32) float64 {
	right := len(s.Mated) - below(s.Mated, threshold) + below(s.NonMated, threshold)
	return float64(right) / float64(len(s.Mated)+len(s.NonMated))
}

// thresholds returns every score once, ascending: between two of them no rate changes.
func (s *Scores) thresholds() []float32 {
	all := slices.Concat(s.Mated, s.NonMated)
	all = slices.DeleteFunc(all, func(v float32) bool { return v == NoScore })
	slices.Sort(all)
	return slices.Compact(all)
}

// over is a threshold that nothing reaches: just over the last of the ascending thresholds.
func over(ts []float32) float32 {
	top := float32(1)
	if len(ts) > 0 {
		top = max(top, ts[len(ts)-1])
	}
	return math.Nextafter32(top, math.MaxFloat32)
}

// BestThreshold is the threshold of the highest accuracy, halfway to the score below it so that it does not hang on one
// pair; of equally good ones the lowest. If it is best to match nothing, it lies over every score.
func (s *Scores) BestThreshold() float32 {
	ts := s.thresholds()
	best, most := float32(0), -1.0
	for i, t := range append(ts, over(ts)) {
		if a := s.Accuracy(t); a > most {
			most, best = a, t
			if i > 0 && i < len(ts) {
				best = (ts[i-1] + t) / 2
			}
		}
	}
	return best
}

// EER is the equal error rate: the mean of FMR and FNMR at the threshold where they are closest.
func (s *Scores) EER() (rate float64, threshold float32) {
	gap := math.Inf(1)
	for _, t := range s.thresholds() {
		fmr, fnmr := s.FMR(t), s.FNMR(t)
		if d := math.Abs(fmr - fnmr); d < gap {
			gap, rate, threshold = d, (fmr+fnmr)/2, t
		}
	}
	return rate, threshold
}

// ThresholdAtFMR is the lowest observed score whose false match rate is at most fmr; one over all scores if none is.
func (s *Scores) ThresholdAtFMR(fmr float64) float32 {
	ts := s.thresholds()
	i := sort.Search(len(ts), func(i int) bool { return s.FMR(ts[i]) <= fmr })
	if i == len(ts) {
		return over(ts)
	}
	return ts[i]
}
