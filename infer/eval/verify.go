package eval

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// targets are the false match rates at which FNMR is given.
var targets = []float64{1e-2, 1e-3, 1e-4}

// farTargets follow them where a protocol has comparisons enough to measure them.
var farTargets = []float64{1e-5, 1e-6, 1e-7}

// leastMatches is how many false matches a rate must rest on to be called measured.
const leastMatches = 5

// worstPairs is how many pairs of each kind are listed.
const worstPairs = 20

// Verification are the results of 1:1 comparisons.
type Verification struct {
	Subjects   int            `json:"subjects"`
	Samples    int            `json:"samples"`
	Mated      int            `json:"mated_comparisons"`
	NonMated   int            `json:"non_mated_comparisons"`
	Replicates int            `json:"bootstrap_replicates"`
	Runs       []VerifyResult `json:"runs"`
	// Differences are of every further run to the first one, paired.
	Differences []Difference `json:"differences,omitempty"`
}

// VerifyResult are the figures of one system. FMR and FNMR of EER, Rates and curves count a comparison that could not be
// made as a non-match: with failures they are the generalised rates (FAR and FRR of ISO/IEC 19795-1) of this protocol.
// Matching holds the rates of the comparisons that were made, where there were failures.
type VerifyResult struct {
	Name        string        `json:"name"`
	System      string        `json:"system,omitempty"`
	FTA         Estimate      `json:"failure_to_acquire"` // share of the samples
	FTE         Estimate      `json:"failure_to_enrol"`   // likewise
	Unscored    int           `json:"comparisons_not_made"`
	Failures    []Failure     `json:"failures,omitempty"`
	Quality     *Quality      `json:"quality,omitempty"`
	Seconds     float64       `json:"seconds_per_sample,omitempty"`
	EER         Estimate      `json:"eer"`
	EERAt       float64       `json:"eer_threshold"`
	Nearest     float64       `json:"eer_nearest"`      // mean of FMR and FNMR at the observed score where they are closest
	FVCEER      [2]float64    `json:"fvc_eer_interval"` // the interval in which FVC put the EER; theirs is its middle
	Accuracy    *Estimate     `json:"accuracy,omitempty"`
	ChosenAt    []float64     `json:"accuracy_thresholds,omitempty"` // per half, chosen on the other
	Rates       []RateAt      `json:"rates"`
	ZeroFMR     Estimate      `json:"fnmr_at_zero_fmr"`
	ZeroAt      float64       `json:"zero_fmr_threshold"`
	Matching    *MatchingOnly `json:"matching_only,omitempty"`
	DET         []Point       `json:"det"` // x FMR, y FNMR
	Histogram   Histogram     `json:"histogram"`
	WorstMated  []Scored      `json:"worst_mated"`     // lowest scores
	WorstOthers []Scored      `json:"worst_non_mated"` // highest scores
}

// RateAt is FNMR at the lowest threshold whose measured FMR is at most Target.
type RateAt struct {
	Target    float64  `json:"fmr_target"`
	FMR       Estimate `json:"fmr"` // measured at the threshold, which is held fixed for its bounds
	Threshold float64  `json:"threshold"`
	FNMR      Estimate `json:"fnmr"` // the threshold is chosen anew in every replicate
	Measured  bool     `json:"measured"`
}

// MatchingOnly are rates over the comparisons that were made.
type MatchingOnly struct {
	EER   float64      `json:"eer"`
	Rates [][2]float64 `json:"fmr_fnmr"` // at the thresholds of Rates
}

// Quality are the quantiles of the quality of samples that gave a template or a quality with their failure.
type Quality struct {
	P5     float64 `json:"p5"`
	Median float64 `json:"median"`
	P95    float64 `json:"p95"`
}

// Scored is a pair by the ids of its samples.
type Scored struct {
	A     string  `json:"a"`
	B     string  `json:"b"`
	Score float64 `json:"score"`
}

// Difference is what a run has over the first one: positive means a higher rate.
type Difference struct {
	Run   string         `json:"run"`
	To    string         `json:"to"`
	Rates map[string]Gap `json:"rates"` // by name: "eer", "accuracy", "fnmr@1e-03"
	Order []string       `json:"order"` // of the names
}

// Gap is one difference with the bounds of its paired bootstrap. Bounds that include 0 mean that the data do not
// tell the two apart.
type Gap struct {
	Value float64  `json:"value"`
	Low   *float64 `json:"low,omitempty"`
	High  *float64 `json:"high,omitempty"`
}

// Options are those of an evaluation of runs.
type Options struct {
	Seed       uint64
	Replicates int      // of the bootstrap; 0 gives no bounds by it. Lowered for very many comparisons.
	Progress   Progress // may be nil
}

func (o *Options) progress(what string, total int) func(done int) {
	if o.Progress == nil {
		return nil
	}
	return func(done int) { o.Progress(what, done, total) }
}

// Verify measures runs over one protocol side by side.
func Verify(p *Protocol, runs []*Run, o Options) (*Verification, error) {
	if err := errors.Join(p.check(), checkRuns(p, runs)); err != nil {
		return nil, err
	}
	names, of := subjects(p.Samples)
	v := &Verification{Subjects: len(names), Samples: len(p.Samples)}
	v.Replicates = replicatesFor(o.Replicates, len(p.Comparisons)*len(runs))
	v.Mated, v.NonMated = p.Counts()
	var first *verifier
	for i, r := range runs {
		x := newVerifier(p, of, r, v.NonMated)
		rows := bootstrap(o.Seed, v.Replicates, len(names), x.figures, o.progress("replicates of "+r.Name, v.Replicates))
		v.Runs = append(v.Runs, x.result(p, rows))
		x.rows = rows
		if i == 0 {
			first = x
		} else {
			v.Differences = append(v.Differences, x.minus(first))
		}
	}
	return v, nil
}

func checkRuns(p *Protocol, runs []*Run) error {
	seen := map[string]bool{}
	for _, r := range runs {
		if r.Name == "" || seen[r.Name] {
			return fmt.Errorf("run %q: every run of a report needs a name of its own", r.Name)
		}
		if seen[r.Name] = true; len(r.Scores) != len(p.Comparisons) {
			return fmt.Errorf("run %q has %d scores for %d comparisons", r.Name, len(r.Scores), len(p.Comparisons))
		}
	}
	if len(runs) == 0 {
		return errors.New("no run to measure")
	}
	return nil
}

// verifier computes the figures of one run.
type verifier struct {
	run     *Run
	scores  sorted
	plain   set
	halves  *halves // nil without folds
	targets []float64
	at      []float64 // threshold per target, on all data
	rows    [][]float64
}

func newVerifier(p *Protocol, of []int32, r *Run, nonMated int) *verifier {
	x := &verifier{run: r, scores: newSorted(p, of, r.Scores, nil), targets: slices.Clone(targets)}
	x.plain = x.scores.set(nil)
	for _, f := range farTargets {
		if f*float64(nonMated) >= leastMatches {
			x.targets = append(x.targets, f)
		}
	}
	for _, f := range x.targets {
		x.at = append(x.at, x.plain.atFMR(f))
	}
	if p.Folds > 0 {
		x.halves = newHalves(p, r.Scores)
	}
	return x
}

// names are those of the figures, in order.
func (x *verifier) names() []string {
	n := []string{"eer"}
	for _, f := range x.targets {
		n = append(n, fmt.Sprintf("fnmr@%.0e", f))
	}
	n = append(n, "fnmr@0")
	if x.halves != nil {
		n = append(n, "accuracy")
	}
	return n
}

// figures are EER, FNMR per target, FNMR at FMR 0, then accuracy if there are folds, then FMR at the fixed thresholds.
func (x *verifier) figures(times []uint32) []float64 {
	s := x.plain
	if times != nil {
		s = x.scores.set(times)
	}
	eer, _ := s.eer()
	out := []float64{eer}
	for _, f := range x.targets {
		out = append(out, s.fnmr(s.atFMR(f)))
	}
	out = append(out, s.fnmr(s.atFMR(0)))
	if x.halves != nil {
		a, _ := x.halves.accuracy(times)
		out = append(out, a)
	}
	for _, t := range x.at {
		out = append(out, s.fmr(t))
	}
	return out
}

func (x *verifier) result(p *Protocol, rows [][]float64) VerifyResult {
	f := x.figures(nil)
	mated, non := len(x.plain.mated.v), len(x.plain.non.v)
	r := VerifyResult{
		Name: x.run.Name, System: x.run.System, Failures: x.run.Failures, Seconds: x.run.Seconds,
		Quality: quality(x.run.Quality), EER: estimate(f[0], rows, 0, min(mated, non)),
		DET: x.plain.det(), Histogram: histogram(x.plain.mated.v, x.plain.non.v),
	}
	_, r.EERAt = x.plain.eer()
	r.Nearest, r.FVCEER = x.plain.nearest(r.EERAt), x.plain.fvcEER(r.EERAt)
	k := len(x.names())
	for i, target := range x.targets {
		r.Rates = append(r.Rates, RateAt{
			Target: target, Threshold: x.at[i], Measured: target*float64(non) >= 1,
			FNMR: estimate(f[1+i], rows, 1+i, mated), FMR: estimate(f[k+i], rows, k+i, non),
		})
	}
	z := 1 + len(x.targets)
	r.ZeroFMR, r.ZeroAt = estimate(f[z], rows, z, mated), x.plain.atFMR(0)
	if x.halves != nil {
		a, at := x.halves.accuracy(nil)
		e := estimate(a, rows, z+1, mated+non)
		r.Accuracy, r.ChosenAt = &e, at
	}
	x.failures(p, &r)
	r.WorstMated, r.WorstOthers = worst(p, x.run.Scores)
	return r
}

// failures fills in what could not be acquired, enrolled or compared.
func (x *verifier) failures(p *Protocol, r *VerifyResult) {
	acquire, enrol := countFailures(x.run.Failures)
	n := len(p.Samples)
	r.FTA = estimate(float64(acquire)/float64(n), nil, 0, n)
	r.FTE = estimate(float64(enrol)/float64(n), nil, 0, n)
	made := Scores{}
	for i, v := range x.run.Scores {
		if v == NoScore {
			r.Unscored++
		} else {
			made.add(p.Comparisons[i].Mated, v)
		}
	}
	if r.Unscored == 0 || len(made.Mated) == 0 || len(made.NonMated) == 0 {
		return
	}
	made.Sort()
	eer, _ := made.EER()
	r.Matching = &MatchingOnly{EER: eer}
	for _, t := range x.at {
		r.Matching.Rates = append(r.Matching.Rates, [2]float64{made.FMR(t), made.FNMR(t)})
	}
}

// nearest is the mean of the rates at the observed score where they are closest: at or just before the EER's threshold.
func (s *set) nearest(at float64) float64 {
	mean, gap := math.NaN(), math.Inf(1)
	for _, t := range []float64{max(s.mated.before(at), s.non.before(at)), at} {
		if d := math.Abs(s.fmr(t) - s.fnmr(t)); t > NoScore && d < gap {
			mean, gap = (s.fmr(t)+s.fnmr(t))/2, d
		}
	}
	return mean
}

// fvcEER is the interval in which FVC put the EER, at is the threshold of eer: of the operating points before and after the
// crossing, the one with the smaller sum of rates, from its lower rate to its higher one. FVC's EER is the middle. The
// interval holds the EER of eer. Source: Maio et al., "FVC2000: Fingerprint Verification Competition", IEEE TPAMI 2002.
func (s *set) fvcEER(at float64) [2]float64 {
	fmr1, fnmr1 := 1.0, 0.0
	if before := max(s.mated.before(at), s.non.before(at)); before > NoScore {
		fmr1, fnmr1 = s.fmr(before), s.fnmr(before)
	}
	fmr2, fnmr2 := s.fmr(at), s.fnmr(at)
	if fmr1+fnmr1 <= fmr2+fnmr2 {
		return [2]float64{fnmr1, fmr1}
	}
	return [2]float64{fmr2, fnmr2}
}

// minus is the difference of a run to another, replicate by replicate.
func (x *verifier) minus(first *verifier) Difference {
	d := Difference{Run: x.run.Name, To: first.run.Name, Rates: map[string]Gap{}}
	mine, theirs := x.figures(nil), first.figures(nil)
	for i, name := range x.names() {
		one := Gap{Value: mine[i] - theirs[i]}
		if low, high, ok := percentiles(len(x.rows), func(k int) float64 { return x.rows[k][i] - first.rows[k][i] }); ok {
			one.Low, one.High = &low, &high
		}
		d.Rates[name] = one
		d.Order = append(d.Order, name)
	}
	return d
}

// quality summarises what was measured; nil if nothing was.
func quality(q []float64) *Quality {
	v := slices.DeleteFunc(slices.Clone(q), math.IsNaN)
	if len(v) == 0 {
		return nil
	}
	slices.Sort(v)
	return &Quality{P5: quantile(v, 0.05), Median: quantile(v, 0.5), P95: quantile(v, 0.95)}
}

// worst lists the mated pairs with the lowest scores and the non-mated ones with the highest. Pairs that could not be
// compared are listed as failures instead.
func worst(p *Protocol, scores []float64) (mated, others []Scored) {
	type at struct {
		i int
		v float64 // lower is worse
	}
	var keep [2][]at
	for i, c := range p.Comparisons {
		v, k := scores[i], 0
		if v == NoScore {
			continue
		}
		if !c.Mated {
			v, k = -v, 1
		}
		list := keep[k]
		if len(list) == worstPairs && v >= list[len(list)-1].v {
			continue
		}
		j := len(list)
		for j > 0 && list[j-1].v > v {
			j--
		}
		list = slices.Insert(list, j, at{i, v})
		keep[k] = list[:min(len(list), worstPairs)]
	}
	out := func(list []at) (s []Scored) {
		for _, x := range list {
			c := p.Comparisons[x.i]
			s = append(s, Scored{p.Samples[c.A].ID, p.Samples[c.B].ID, scores[x.i]})
		}
		return s
	}
	return out(keep[0]), out(keep[1])
}
