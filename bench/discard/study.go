package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// shares of the mated comparisons that are not made.
var shares = []float64{0, 0.05, 0.10, 0.20}

// shown is a sample with its measures, higher being better; nil where there is no template.
type shown struct {
	subject string
	good    []float64
}

// mated is a comparison of two samples of one subject.
type mated struct {
	a, b  int
	score float64
}

// study is what is known of a data set.
type study struct {
	title      string
	thresholds []float64
	measures   []string
	pictures   []shown
	pairs      []mated
}

// quality of a comparison: that of the worse picture; -Inf where one has none.
func (s *study) quality(p *mated, measure int) float64 {
	a, b := s.pictures[p.a].good, s.pictures[p.b].good
	if a == nil || b == nil {
		return math.Inf(-1)
	}
	return min(a[measure], b[measure])
}

// left gives the false non-match rate after each of the shares, by a measure. Comparisons of equal quality go together, each in
// part: a measure that is the same everywhere must look like chance.
func (s *study) left(measure int, threshold float64) (rates []float64, deviations float64) {
	type one struct{ quality, errors, count float64 }
	var list []one
	total := 0.0
	for i := range s.pairs {
		o := one{quality: s.quality(&s.pairs[i], measure), count: 1}
		if !(s.pairs[i].score >= threshold) {
			o.errors = 1
			total++
		}
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b one) int { return cmp.Compare(a.quality, b.quality) })
	groups := list[:0]
	for _, o := range list {
		if n := len(groups); n > 0 && groups[n-1].quality == o.quality {
			groups[n-1].errors, groups[n-1].count = groups[n-1].errors+o.errors, groups[n-1].count+o.count
		} else {
			groups = append(groups, o)
		}
	}
	n := float64(len(s.pairs))
	removed := 0.0
	for _, share := range shares {
		gone := share * n
		removed = 0
		for _, g := range groups {
			part := min(1, gone/g.count)
			removed += part * g.errors
			if gone -= part * g.count; gone <= 0 {
				break
			}
		}
		rates = append(rates, (total-removed)/(n-share*n))
	}
	f := shares[len(shares)-1]
	if spread := math.Sqrt(total * f * (1 - f) * (n - total) / (n - 1)); spread > 0 {
		deviations = (removed - total*f) / spread
	}
	return rates, deviations
}

func (s *study) print(w io.Writer) {
	for _, threshold := range s.thresholds {
		fmt.Fprintf(w, "\n%s: %d mated comparisons of %d pictures, threshold %.3f\n", s.title, len(s.pairs), len(s.pictures), threshold)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprint(t, "FNMR IN % WITHOUT THE WORST")
		for _, share := range shares {
			fmt.Fprintf(t, "\t%.0f %%", share*100)
		}
		fmt.Fprintln(t, "\tDEVIATIONS")
		for m, name := range s.measures {
			rates, deviations := s.left(m, threshold)
			fmt.Fprint(t, name)
			for _, r := range rates {
				fmt.Fprintf(t, "\t%.2f", r*100)
			}
			fmt.Fprintf(t, "\t%+.1f\n", deviations)
		}
		rates, _ := s.left(0, threshold)
		fmt.Fprint(t, "(ideal)")
		for _, share := range shares {
			fmt.Fprintf(t, "\t%.2f", max(0, rates[0]-share)/(1-share)*100)
		}
		fmt.Fprintln(t, "\t")
		t.Flush()
	}
}
