package eval

import (
	"math"
	"slices"
)

// NoScore is the score of a comparison that could not be made: below every threshold.
const NoScore = float32(-2)

// Scores are the outcomes of a protocol.
type Scores struct {
	Mated, NonMated []float32
}

// FMR and FNMR at a threshold: the share of non-mated scores at or over it, and of mated scores under it
// (ISO/IEC 19795-1). Pairs without a score count as non-matches in both.
func (s *Scores) FMR(threshold float32) float64  { return share(s.NonMated, threshold, true) }
func (s *Scores) FNMR(threshold float32) float64 { return share(s.Mated, threshold, false) }

func share(scores []float32, threshold float32, atLeast bool) float64 {
	if len(scores) == 0 {
		return math.NaN()
	}
	n := 0
	for _, v := range scores {
		if (v >= threshold) == atLeast {
			n++
		}
	}
	return float64(n) / float64(len(scores))
}

// Accuracy is the share of right answers at a threshold.
func (s *Scores) Accuracy(threshold float32) float64 {
	wrong := s.FMR(threshold)*float64(len(s.NonMated)) + s.FNMR(threshold)*float64(len(s.Mated))
	return 1 - wrong/float64(len(s.Mated)+len(s.NonMated))
}

// Thresholds returns every threshold at which the rates change, ascending.
func (s *Scores) Thresholds() []float32 {
	all := slices.Concat(s.Mated, s.NonMated)
	slices.Sort(all)
	return slices.Compact(all)
}

// BestThreshold is the threshold of the highest accuracy, halfway to the score below it so that it does not hang on one
// pair; of equally good ones the lowest.
func (s *Scores) BestThreshold() float32 {
	ts := s.Thresholds()
	best, acc := float32(0), -1.0
	for i, t := range ts {
		if a := s.Accuracy(t); a > acc {
			acc, best = a, t
			if i > 0 && ts[i-1] != NoScore {
				best = (ts[i-1] + t) / 2
			}
		}
	}
	return best
}

// EER is the equal error rate: where FMR and FNMR cross, the mean of the two at the threshold where they are closest.
func (s *Scores) EER() (rate float64, threshold float32) {
	gap := math.Inf(1)
	for _, t := range s.Thresholds() {
		fmr, fnmr := s.FMR(t), s.FNMR(t)
		if d := math.Abs(fmr - fnmr); d < gap {
			gap, rate, threshold = d, (fmr+fnmr)/2, t
		}
	}
	return rate, threshold
}

// ThresholdAtFMR is the lowest threshold whose false match rate is at most fmr.
func (s *Scores) ThresholdAtFMR(fmr float64) float32 {
	for _, t := range s.Thresholds() {
		if s.FMR(t) <= fmr {
			return t
		}
	}
	return 1
}
