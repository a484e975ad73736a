package eval

import (
	"math"
	"slices"
	"sort"
)

// NoScore is the score of a comparison that could not be made: below every threshold.
var NoScore = math.Inf(-1)

// Scores are the outcomes of comparisons, mated (of one subject) and non-mated. Sort them before asking for rates.
type Scores struct {
	Mated, NonMated []float64
}

// Sort brings both lists into ascending order, which the rates rely on.
func (s *Scores) Sort() {
	slices.Sort(s.Mated)
	slices.Sort(s.NonMated)
}

func (s *Scores) add(mated bool, v float64) {
	if mated {
		s.Mated = append(s.Mated, v)
	} else {
		s.NonMated = append(s.NonMated, v)
	}
}

// plain is the set in which every score counts once.
func (s *Scores) plain() set { return set{dist{v: s.Mated}, dist{v: s.NonMated}} }

// FMR is the false match rate at a threshold: the share of non-mated scores at or over it (ISO/IEC 19795-1).
func (s *Scores) FMR(threshold float64) float64 { p := s.plain(); return p.fmr(threshold) }

// FNMR is the false non-match rate at a threshold: the share of mated scores under it. A comparison that could not be
// made counts as a non-match.
func (s *Scores) FNMR(threshold float64) float64 { p := s.plain(); return p.fnmr(threshold) }

// Accuracy is the share of right answers at a threshold.
func (s *Scores) Accuracy(threshold float64) float64 { p := s.plain(); return p.accuracy(threshold) }

// BestThreshold is the threshold of the highest accuracy, halfway to the score below it so that it does not hang on one
// pair; of equally good ones the lowest. If it is best to match nothing, it lies over every score.
func (s *Scores) BestThreshold() float64 { p := s.plain(); return p.best() }

// EER is the equal error rate and its threshold. The operating points (FMR, FNMR) at the observed scores, in order, and
// the two ends (1, 0) and (0, 1) are joined by straight lines; the EER is where that line meets FMR = FNMR. With few
// comparisons, or scores that are small integers, both rates move in steps and the crossing lies inside one; others take the
// mean of the rates at the nearest score (VerifyResult.Nearest) or the middle of an interval (FVCEER), which may differ by
// half a step. The threshold is the observed score at the end of the step.
func (s *Scores) EER() (rate, threshold float64) { p := s.plain(); return p.eer() }

// ThresholdAtFMR is the lowest observed score whose false match rate is at most fmr; one over all scores if none is.
func (s *Scores) ThresholdAtFMR(fmr float64) float64 { p := s.plain(); return p.atFMR(fmr) }

// dist is a list of ascending scores, each with a weight: cum[i] is the weight of the first i. Without cum each weighs 1.
type dist struct {
	v   []float64
	cum []uint64 // len(v)+1
}

func (d *dist) total() float64 { return d.weight(len(d.v)) }

// weight of the first n scores.
func (d *dist) weight(n int) float64 {
	if d.cum == nil {
		return float64(n)
	}
	return float64(d.cum[n])
}

// below counts the scores under the threshold; NoScore is under every one.
func (d *dist) below(threshold float64) int {
	return sort.Search(len(d.v), func(i int) bool { return d.v[i] > NoScore && d.v[i] >= threshold })
}

// under is the share of the weight under the threshold; NaN without any weight.
func (d *dist) under(threshold float64) float64 { return d.weight(d.below(threshold)) / d.total() }

// set is a pair of distributions: what all rates are computed from.
type set struct{ mated, non dist }

func (s *set) fmr(t float64) float64 {
	total := s.non.total()
	return (total - s.non.weight(s.non.below(t))) / total
}

func (s *set) fnmr(t float64) float64 { return s.mated.under(t) }

func (s *set) accuracy(t float64) float64 {
	right := s.mated.total() - s.mated.weight(s.mated.below(t)) + s.non.weight(s.non.below(t))
	return right / (s.mated.total() + s.non.total())
}

// thresholds returns every score once, ascending: between two of them no rate changes.
func (s *set) thresholds() []float64 {
	all := slices.Concat(s.mated.v, s.non.v)
	all = slices.DeleteFunc(all, func(v float64) bool { return v == NoScore })
	slices.Sort(all)
	return slices.Compact(all)
}

// top is the highest score of both lists, NoScore if there is none.
func (s *set) top() float64 {
	top := NoScore
	for _, d := range []*dist{&s.mated, &s.non} {
		if len(d.v) > 0 {
			top = max(top, d.v[len(d.v)-1])
		}
	}
	return top
}

// over is a threshold that nothing reaches: just over every score, and over 1, the highest that a cosine can be.
func (s *set) over() float64 {
	// one step of float32, since thresholds are kept as such in a bundle
	return float64(math.Nextafter32(float32(max(1, s.top())), math.MaxFloat32))
}

func (s *set) best() float64 {
	ts := s.thresholds()
	best, most := 0.0, -1.0
	for i, t := range append(ts, s.over()) {
		if a := s.accuracy(t); a > most {
			most, best = a, t
			if i > 0 && i < len(ts) {
				best = (ts[i-1] + t) / 2
			}
		}
	}
	return best
}

func (s *set) eer() (rate, threshold float64) {
	falls := func(d *dist) float64 { // the lowest score of d at which FNMR is no longer under FMR
		i := sort.Search(len(d.v), func(i int) bool { return d.v[i] > NoScore && s.fnmr(d.v[i]) >= s.fmr(d.v[i]) })
		if i == len(d.v) {
			return s.over()
		}
		return d.v[i]
	}
	threshold = min(falls(&s.mated), falls(&s.non))
	fmr0, fnmr0 := 1.0, 0.0
	if before := max(s.mated.before(threshold), s.non.before(threshold)); before > NoScore {
		fmr0, fnmr0 = s.fmr(before), s.fnmr(before)
	}
	fmr1, fnmr1 := s.fmr(threshold), s.fnmr(threshold)
	over, under := fmr0-fnmr0, fnmr1-fmr1 // both 0 or more
	if over+under == 0 {
		return fmr1, threshold
	}
	return fmr0 + over/(over+under)*(fmr1-fmr0), threshold
}

// before is the highest score under the threshold; NoScore if there is none.
func (d *dist) before(threshold float64) float64 {
	if i := d.below(threshold); i > 0 {
		return d.v[i-1]
	}
	return NoScore
}

// atFMR: FMR falls only just over a non-mated score, so the threshold is the first observed score over the highest
// non-mated one whose rate is still too high.
func (s *set) atFMR(fmr float64) float64 {
	v := s.non.v
	i := sort.Search(len(v), func(i int) bool { return v[i] > NoScore && s.fmr(v[i]) <= fmr })
	limit := NoScore // thresholds up to this one are too low
	if i > 0 {
		limit = v[i-1]
	}
	t := s.over()
	for _, d := range []*dist{&s.mated, &s.non} {
		if j := sort.Search(len(d.v), func(j int) bool { return d.v[j] > limit }); j < len(d.v) {
			t = min(t, d.v[j])
		}
	}
	return t
}
