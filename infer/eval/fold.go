package eval

// CrossValidated is the accuracy when the threshold that is best on one half of the folds judges the other half, both
// ways, and those two thresholds. With one fold only, even and odd comparisons are the halves. NaN without folds.
func CrossValidated(p *Protocol, scores []float64) (accuracy float64, thresholds []float64) {
	h := newHalves(p, scores)
	return h.accuracy(nil)
}

// halves are the comparisons of a protocol in two halves, sorted by score.
type halves [2]sorted

func newHalves(p *Protocol, scores []float64) *halves {
	_, of := subjects(p.Samples)
	var in [2][]int32
	for i, c := range p.Comparisons {
		h := i % 2
		if p.Folds > 1 {
			h = int(c.Fold) * 2 / p.Folds
		}
		in[h] = append(in[h], int32(i))
	}
	return &halves{newSorted(p, of, scores, in[0]), newSorted(p, of, scores, in[1])}
}

// accuracy with the multiplicity of each subject, nil for one each.
func (h *halves) accuracy(times []uint32) (float64, []float64) {
	sets := [2]set{h[0].set(times), h[1].set(times)}
	var thresholds []float64
	right, total := 0.0, 0.0
	for i := range sets {
		t := sets[1-i].best()
		thresholds = append(thresholds, t)
		n := sets[i].mated.total() + sets[i].non.total()
		right += sets[i].accuracy(t) * n
		total += n
	}
	return right / total, thresholds
}
