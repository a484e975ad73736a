package sched

import "slices"

// Histogram counts observations by their size. Counts[i] are those of at most Bounds[i] and above Bounds[i-1]; the last of
// Counts, which has no bound, those above all.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
	Count  uint64
}

// timeBounds are the bounds of times in seconds: half a millisecond to ten seconds.
var timeBounds = []float64{.0005, .001, .002, .005, .01, .02, .03, .05, .075, .1, .15, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10}

// sizeBounds are the bounds of batch sizes.
var sizeBounds = []float64{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256}

func newHistogram(bounds []float64) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds)+1)}
}

func (h *Histogram) observe(v float64) {
	i, _ := slices.BinarySearch(h.Bounds, v)
	h.Counts[i]++
	h.Sum += v
	h.Count++
}

func (h *Histogram) clone() Histogram {
	c := *h
	c.Counts = slices.Clone(h.Counts)
	return c
}
