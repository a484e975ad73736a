package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Search is an open-set identification protocol: who is enrolled, with which samples, and who looks for them.
type Search struct {
	Samples []Sample
	Enrol   [][]int // samples of each enrolled subject, in the order in which galleries grow
	Mated   []Probe // of enrolled subjects
	Others  []int   // samples of subjects that are never enrolled
	Sizes   []int   // of the galleries, in subjects, ascending; each holds the smaller ones
}

// Probe is a sample of an enrolled subject.
type Probe struct {
	Sample int
	Enrol  int // index of the subject
}

// SearchOptions shape the protocol.
type SearchOptions struct {
	Seed      uint64
	PerPerson int     // samples enrolled of a subject, from the first by name
	Strangers float64 // least share of the subjects that is never enrolled
}

// NewSearch makes an identification protocol of samples with their subjects (Tree). Subjects without a sample to spare
// are strangers; if those are less than the share asked for, more are drawn by the seed. The others are enrolled with
// their first samples and looked for with the rest, in an order drawn by the seed. Galleries grow by 1, 2, 5 steps.
func NewSearch(samples []Sample, o SearchOptions) (*Search, error) {
	if o.PerPerson < 1 || !(o.Strangers > 0 && o.Strangers < 1) {
		return nil, fmt.Errorf("%d samples a subject, %v strangers: at least 1, and a share between 0 and 1",
			o.PerPerson, o.Strangers)
	}
	names, of := subjects(samples)
	list := make([][]int, len(names))
	for i := range samples {
		list[of[i]] = append(list[of[i]], i)
	}
	s := &Search{Samples: samples}
	var candidates [][]int
	strangers := 0
	for _, l := range list {
		if len(l) > o.PerPerson {
			candidates = append(candidates, l)
		} else {
			s.Others = append(s.Others, l...)
			strangers++
		}
	}
	r := rand.New(rand.NewPCG(o.Seed, 1))
	r.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	for ; strangers < int(math.Ceil(o.Strangers*float64(len(names)))) && len(candidates) > 0; strangers++ {
		s.Others = append(s.Others, candidates[len(candidates)-1]...)
		candidates = candidates[:len(candidates)-1]
	}
	for i, l := range candidates {
		s.Enrol = append(s.Enrol, l[:o.PerPerson])
		for _, k := range l[o.PerPerson:] {
			s.Mated = append(s.Mated, Probe{k, i})
		}
	}
	if len(s.Enrol) == 0 || len(s.Others) == 0 {
		return nil, fmt.Errorf("%d subjects to enrol and %d samples of strangers: identification needs both, and subjects with "+
			"more than %d samples", len(s.Enrol), len(s.Others), o.PerPerson)
	}
	s.Sizes = sizes(len(s.Enrol))
	return s, nil
}

// sizes are 1, 2, 5, 10, ... from 10 to n, and n itself; a small n has only itself.
func sizes(n int) (out []int) {
	for d := 10; d < n; d *= 10 {
		for _, f := range []int{1, 2, 5} {
			if d*f < n {
				out = append(out, d*f)
			}
		}
	}
	return append(out, n)
}

// SearchRun is one system's answers: per gallery size the best candidate of every probe.
type SearchRun struct {
	Name     string
	System   string
	Failures []Failure
	Quality  []float64
	Seconds  float64
	Mated    [][]Candidate // per size, per mated probe; a probe whose subject is in no gallery of that size yet has none
	Others   [][]float64   // per size, per stranger: the best score; NoScore where there is none
}

// Candidate is the answer to a mated probe.
type Candidate struct {
	InGallery bool
	First     bool    // the mate is the best candidate
	Score     float64 // of the mate; NoScore if it has no template or the probe has none
}

// Run searches every probe in every gallery. A subject's score is the highest of its samples'.
func (s *Search) Run(ctx context.Context, name string, a *Acquired, x Extractor, progress Progress) (*SearchRun, error) {
	r := &SearchRun{Name: name, Failures: a.Failures, Quality: a.Quality, Seconds: a.Seconds}
	for range s.Sizes {
		r.Mated = append(r.Mated, make([]Candidate, len(s.Mated)))
		r.Others = append(r.Others, make([]float64, len(s.Others)))
	}
	total := len(s.Mated) + len(s.Others)
	scores := make([]float64, len(s.Enrol))
	for k := range total {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sample, mate := 0, -1
		if k < len(s.Mated) {
			sample, mate = s.Mated[k].Sample, s.Mated[k].Enrol
		} else {
			sample = s.Others[k-len(s.Mated)]
		}
		if err := s.score(scores, a, x, sample); err != nil {
			return nil, err
		}
		for i, n := range s.Sizes {
			best := slices.Max(scores[:n])
			switch {
			case mate < 0:
				r.Others[i][k-len(s.Mated)] = best
			case mate < n:
				r.Mated[i][k] = Candidate{InGallery: true, Score: scores[mate], First: scores[mate] == best && best != NoScore}
			}
		}
		progress("searches", k+1, total)
	}
	return r, nil
}

// score compares a sample with every enrolled subject.
func (s *Search) score(scores []float64, a *Acquired, x Extractor, sample int) error {
	probe := a.Templates[sample]
	for i, enrolled := range s.Enrol {
		scores[i] = NoScore
		for _, e := range enrolled {
			if probe == nil || a.Templates[e] == nil {
				continue
			}
			v := x.Compare(*a.Templates[e], *probe)
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return unranked(s.Samples[e].ID, s.Samples[sample].ID, v)
			}
			scores[i] = max(scores[i], v)
		}
	}
	return nil
}

// fpirTargets are the false positive identification rates at which FNIR is given.
var fpirTargets = []float64{1e-3, 1e-2, 1e-1}

// Identification are the results of open-set searches.
type Identification struct {
	Enrolled   int            `json:"enrolled_subjects"`
	Mated      int            `json:"mated_probes"`
	NonMated   int            `json:"non_mated_probes"`
	Replicates int            `json:"bootstrap_replicates"`
	Runs       []SearchResult `json:"runs"`
}

// SearchResult are the figures of one system. FPIR is the share of the strangers' searches that return anybody; FNIR that
// of the mated searches that do not return the mate in the first place at or over the threshold. A probe or enrolment
// without a template counts as not found.
type SearchResult struct {
	Name     string       `json:"name"`
	System   string       `json:"system,omitempty"`
	FTA      Estimate     `json:"failure_to_acquire"`
	FTE      Estimate     `json:"failure_to_enrol"`
	Failures []Failure    `json:"failures,omitempty"`
	Quality  *Quality     `json:"quality,omitempty"`
	Seconds  float64      `json:"seconds_per_sample,omitempty"`
	Sizes    []SizeResult `json:"gallery_sizes"`
	Curve    []Point      `json:"curve"` // of the largest gallery: x FPIR, y FNIR
	Score    Histogram    `json:"histogram"`
}

// SizeResult are the figures of one gallery size.
type SizeResult struct {
	Subjects int      `json:"subjects"`
	Probes   int      `json:"mated_probes"` // those of subjects in this gallery
	Rank1    Estimate `json:"rank_1"`       // share of mated searches with the mate in the first place, at no threshold
	Rates    []FNIRAt `json:"rates"`
}

// FNIRAt is FNIR at the lowest threshold whose measured FPIR is at most Target.
type FNIRAt struct {
	Target    float64  `json:"fpir_target"`
	FPIR      float64  `json:"fpir"`
	Threshold float64  `json:"threshold"`
	FNIR      Estimate `json:"fnir"`
	Measured  bool     `json:"measured"` // there are 1/Target strangers' probes at least
}

// Identify measures runs over one search protocol side by side.
func Identify(s *Search, runs []*SearchRun, o Options) (*Identification, error) {
	if len(runs) == 0 {
		return nil, errors.New("no run to measure")
	}
	names, of := subjects(s.Samples)
	v := &Identification{Enrolled: len(s.Enrol), Mated: len(s.Mated), NonMated: len(s.Others), Replicates: o.Replicates}
	for _, r := range runs {
		out := SearchResult{Name: r.Name, System: r.System, Failures: r.Failures, Quality: quality(r.Quality), Seconds: r.Seconds}
		acquire, enrol := countFailures(r.Failures)
		n := len(s.Samples)
		out.FTA = estimate(float64(acquire)/float64(n), nil, 0, n)
		out.FTE = estimate(float64(enrol)/float64(n), nil, 0, n)
		for i, size := range s.Sizes {
			x := newSearcher(s, r, of, i)
			what := fmt.Sprintf("replicates of %s at %d", r.Name, size)
			rows := bootstrap(o.Seed, o.Replicates, len(names), x.figures, o.progress(what, o.Replicates))
			out.Sizes = append(out.Sizes, x.result(size, rows))
			if i == len(s.Sizes)-1 {
				p := x.scores.set(nil)
				out.Curve, out.Score = p.det(), histogram(p.mated.v, p.non.v)
			}
		}
		v.Runs = append(v.Runs, out)
	}
	return v, nil
}

// searcher computes the figures of one run at one gallery size. FNIR and FPIR are the FNMR and FMR of a set whose mated
// scores are those of the mates in first place and whose non-mated scores are the best of every stranger's search.
type searcher struct {
	scores sorted
	probes int
}

func newSearcher(s *Search, r *SearchRun, of []int32, size int) *searcher {
	p := &Protocol{}
	var scores []float64
	var who []int32
	add := func(sample int, mated bool, v float64) {
		k := int32(len(scores))
		p.Comparisons = append(p.Comparisons, Comparison{A: k, B: k, Mated: mated}) // one side: the probe's subject
		scores, who = append(scores, v), append(who, of[sample])
	}
	x := &searcher{}
	for i, c := range r.Mated[size] {
		if !c.InGallery {
			continue
		}
		x.probes++
		v := c.Score
		if !c.First {
			v = NoScore
		}
		add(s.Mated[i].Sample, true, v)
	}
	for i, v := range r.Others[size] {
		add(s.Others[i], false, v)
	}
	x.scores = newSorted(p, who, scores, nil)
	return x
}

func (x *searcher) figures(times []uint32) []float64 {
	s := x.scores.set(times)
	out := []float64{1 - s.fnmr(-math.MaxFloat64)}
	for _, f := range fpirTargets {
		out = append(out, s.fnmr(s.atFMR(f)))
	}
	return out
}

func (x *searcher) result(size int, rows [][]float64) SizeResult {
	f, s := x.figures(nil), x.scores.set(nil)
	out := SizeResult{Subjects: size, Probes: x.probes, Rank1: estimate(f[0], rows, 0, x.probes)}
	for i, target := range fpirTargets {
		t := s.atFMR(target)
		out.Rates = append(out.Rates, FNIRAt{
			Target: target, FPIR: s.fmr(t), Threshold: t, FNIR: estimate(f[1+i], rows, 1+i, x.probes),
			Measured: target*float64(len(s.non.v)) >= 1,
		})
	}
	return out
}
