package quant

import "math"

// bins is the resolution of a histogram: 16 bins per step of an 8-bit quantiser over the whole range.
const bins = 4096

// histogram is what calibration keeps of one tensor: two passes over the samples, first the limits, then the counts. Its
// size does not depend on how much it has seen.
type histogram struct {
	lo, hi float64 // limits of what was seen
	seen   bool
	zeros  float64 // exact zeros, which every quantiser here keeps exact: they are left out of the bins
	counts []float64
	total  float64 // of the bins
}

// limits widens the limits; false if a value is no number.
func (h *histogram) limits(values []float32) bool {
	if len(values) == 0 {
		return true
	}
	lo, hi, rest := values[0], values[0], float32(0)
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
		rest += v - v // 0, or no number from the first that is none
	}
	if rest != 0 {
		return false
	}
	if !h.seen {
		h.lo, h.hi, h.seen = float64(lo), float64(hi), true
	}
	h.lo, h.hi = min(h.lo, float64(lo)), max(h.hi, float64(hi))
	return true
}

// count adds values to the bins; the limits must be those of all samples.
func (h *histogram) count(values []float32) {
	if h.counts == nil {
		h.counts = make([]float64, bins)
	}
	lo, scale := float32(h.lo), float32(0)
	if h.hi > h.lo {
		scale = float32(bins / (h.hi - h.lo))
	}
	for _, v := range values {
		if v == 0 {
			h.zeros++
			continue
		}
		h.counts[min(max(int((v-lo)*scale), 0), bins-1)]++
		h.total++
	}
}

// centre is the value that a bin stands for.
func (h *histogram) centre(i int) float64 { return h.lo + (float64(i)+0.5)*(h.hi-h.lo)/bins }

// merge is a histogram of both, on common limits; counts go to the bin of their centre.
func (h *histogram) merge(o *histogram) *histogram {
	m := &histogram{lo: min(h.lo, o.lo), hi: max(h.hi, o.hi), seen: true, zeros: h.zeros + o.zeros, total: h.total + o.total, counts: make([]float64, bins)}
	for _, part := range []*histogram{h, o} {
		for i, c := range part.counts {
			if c > 0 {
				m.counts[m.bin(part.centre(i))] += c
			}
		}
	}
	return m
}

func (h *histogram) bin(x float64) int {
	if h.hi == h.lo {
		return 0
	}
	return min(max(int((x-h.lo)*bins/(h.hi-h.lo)), 0), bins-1)
}

// magnitudes is the histogram of absolute values, n bins from 0 to the largest, zeros left out.
func (h *histogram) magnitudes(n int) (counts []float64, width float64) {
	counts = make([]float64, n)
	width = math.Max(math.Abs(h.lo), math.Abs(h.hi)) / float64(n)
	for i, c := range h.counts {
		if c > 0 && width > 0 {
			counts[min(int(math.Abs(h.centre(i))/width), n-1)] += c
		}
	}
	return counts, width
}
