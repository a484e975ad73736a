package eval

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Presentation is one line of a liveness list.
type Presentation struct {
	ID      string // the path as listed
	Path    string // relative to the folder of pictures, with slashes
	Species string // of the attack instrument; empty for a bona fide presentation
}

// maxPresentations bounds a liveness list.
const maxPresentations = 10_000_000

// ParseLiveness reads a list of presentations (see the package comment). Errors name the line.
func ParseLiveness(r io.Reader) ([]Presentation, error) {
	var out []Presentation
	s := bufio.NewScanner(r)
	line := 0
	for s.Scan() {
		line++
		text := strings.TrimSpace(s.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		p, err := parsePresentation(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if out = append(out, p); len(out) > maxPresentations {
			return nil, fmt.Errorf("line %d: more than %d presentations", line, maxPresentations)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("behind line %d: %w", line, err)
	}
	if len(out) == 0 {
		return nil, errors.New("the list of presentations is empty")
	}
	return out, nil
}

func parsePresentation(text string) (Presentation, error) {
	f := strings.Fields(text)
	if strings.Contains(text, "\t") {
		f = strings.Split(text, "\t")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
	}
	p := Presentation{}
	if len(f) < 2 || !filepath.IsLocal(filepath.FromSlash(f[0])) || strings.ContainsAny(f[0], "\\\x00") {
		return p, fmt.Errorf("%q is not \"path label species\" with a path inside the folder of pictures", text)
	}
	p.ID, p.Path = f[0], f[0]
	switch {
	case f[1] == "bonafide" && len(f) == 2:
	case f[1] == "attack" && len(f) == 3 && f[2] != "":
		p.Species = f[2]
	default:
		return p, fmt.Errorf("%q: the label is bonafide without a species, or attack with one", text)
	}
	return p, nil
}

// LivenessRun is one system's answers to a list of presentations.
type LivenessRun struct {
	Name     string
	System   string
	Scores   []float64 // per presentation; NoScore for a non-response
	Failures []Failure
	Seconds  float64
}

// Present scores every presentation.
func Present(ctx context.Context, name, dir string, list []Presentation, x Liveness, progress Progress) (*LivenessRun, error) {
	r := &LivenessRun{Name: name, Scores: make([]float64, len(list))}
	start := time.Now()
	for i, p := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := x.Liveness(ctx, filepath.Join(dir, filepath.FromSlash(p.Path)))
		switch f, ok := failure(p.ID, err); {
		case ok:
			r.Failures = append(r.Failures, f)
			v = NoScore
		case err != nil:
			return nil, fmt.Errorf("%s: %w", p.Path, err)
		case math.IsNaN(v) || math.IsInf(v, 0):
			return nil, fmt.Errorf("%s: the score is %v, which cannot be ranked", p.Path, v)
		}
		r.Scores[i] = v
		progress("presentations", i+1, len(list))
	}
	r.Seconds = time.Since(start).Seconds() / float64(len(list))
	return r, nil
}

// apcerTargets are those at which BPCER is given.
var apcerTargets = []float64{0.05, 0.01}

// Attack are the results of presentation attack detection. Bounds come from a bootstrap over presentations, since a list
// names no subjects.
type Attack struct {
	BonaFide   int            `json:"bona_fide_presentations"`
	Attacks    int            `json:"attack_presentations"`
	Replicates int            `json:"bootstrap_replicates"`
	Runs       []AttackResult `json:"runs"`
}

// AttackResult are the figures of one system. Rates are over the presentations that got a response; APCER without a
// species is the highest of all species, as ISO/IEC 30107-3 has it.
type AttackResult struct {
	Name      string      `json:"name"`
	System    string      `json:"system,omitempty"`
	Threshold float64     `json:"threshold"` // a score at or over it is called bona fide
	BPCER     Estimate    `json:"bpcer"`
	APCER     float64     `json:"apcer"`
	Species   []Species   `json:"species"`
	BPNRR     float64     `json:"bona_fide_non_response_rate"`
	At        []BPCERAt   `json:"bpcer_at_apcer"`
	EER       float64     `json:"eer"` // where BPCER meets the highest APCER, as for Scores.EER
	EERAt     float64     `json:"eer_threshold"`
	Failures  []Failure   `json:"failures,omitempty"`
	Seconds   float64     `json:"seconds_per_sample,omitempty"`
	Curve     []Point     `json:"curve"` // x APCER, y BPCER
	Histogram Histogram   `json:"histogram"`
	Missed    []Presented `json:"worst_attacks"`   // highest scores
	Refused   []Presented `json:"worst_bona_fide"` // lowest scores
}

// Species are the figures of one attack instrument species.
type Species struct {
	Name          string   `json:"name"`
	Presentations int      `json:"presentations"`
	APCER         Estimate `json:"apcer"`
	APNRR         float64  `json:"non_response_rate"`
}

// BPCERAt is BPCER at the lowest threshold whose highest APCER is at most Target.
type BPCERAt struct {
	Target    float64  `json:"apcer_target"`
	APCER     float64  `json:"apcer"`
	Threshold float64  `json:"threshold"`
	BPCER     Estimate `json:"bpcer"`
}

// Presented is one presentation by its path.
type Presented struct {
	ID    string  `json:"id"`
	Score float64 `json:"score"`
}

// Attacks measures runs over one list side by side, at one threshold each.
func Attacks(list []Presentation, runs []*LivenessRun, thresholds []float64, o Options) (*Attack, error) {
	species := map[string]int{}
	out := &Attack{Replicates: o.Replicates}
	for _, p := range list {
		if p.Species == "" {
			out.BonaFide++
			continue
		}
		species[p.Species]++
		out.Attacks++
	}
	if out.BonaFide == 0 || out.Attacks == 0 {
		return nil, fmt.Errorf("%d bona fide and %d attack presentations: rates need both", out.BonaFide, out.Attacks)
	}
	names := slices.Sorted(maps.Keys(species))
	for i, r := range runs {
		if len(r.Scores) != len(list) {
			return nil, fmt.Errorf("run %q has %d scores for %d presentations", r.Name, len(r.Scores), len(list))
		}
		x := newPAD(list, r.Scores, names, thresholds[i])
		if err := x.check(); err != nil {
			return nil, fmt.Errorf("run %q: %w", r.Name, err)
		}
		rows := bootstrap(o.Seed, o.Replicates, len(list), x.figures, o.progress("replicates of "+r.Name, o.Replicates))
		res := x.result(rows)
		res.Name, res.System, res.Failures, res.Seconds = r.Name, r.System, r.Failures, r.Seconds
		out.Runs = append(out.Runs, res)
	}
	return out, nil
}

// pad computes the figures of one run.
type pad struct {
	list      []Presentation
	scores    []float64
	threshold float64
	names     []string // of the species
	bonaFide  []int    // presentations with a response, ascending by score
	attacks   [][]int  // likewise, per species
}

func newPAD(list []Presentation, scores []float64, names []string, threshold float64) *pad {
	x := &pad{list: list, scores: scores, threshold: threshold, names: names, attacks: make([][]int, len(names))}
	for i, p := range list {
		switch k, _ := slices.BinarySearch(names, p.Species); {
		case scores[i] == NoScore:
		case p.Species == "":
			x.bonaFide = append(x.bonaFide, i)
		default:
			x.attacks[k] = append(x.attacks[k], i)
		}
	}
	byScore := func(a, b int) int {
		switch {
		case scores[a] < scores[b]:
			return -1
		case scores[a] > scores[b]:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(x.bonaFide, byScore)
	for _, a := range x.attacks {
		slices.SortStableFunc(a, byScore)
	}
	return x
}

// check refuses a run that gives no rate at all.
func (x *pad) check() error {
	if len(x.bonaFide) == 0 || !slices.ContainsFunc(x.attacks, func(a []int) bool { return len(a) > 0 }) {
		return errors.New("no response to any bona fide, or to any attack presentation: nothing to measure")
	}
	return nil
}

// padSet are weighted distributions of the bona fide and of each species.
type padSet struct {
	bonaFide dist
	attacks  []dist
}

func (x *pad) set(times []uint32) padSet {
	one := func(which []int) dist {
		d := dist{v: make([]float64, len(which)), cum: make([]uint64, len(which)+1)}
		for k, i := range which {
			w := uint64(1)
			if times != nil {
				w = uint64(times[i])
			}
			d.v[k], d.cum[k+1] = x.scores[i], d.cum[k]+w
		}
		return d
	}
	s := padSet{bonaFide: one(x.bonaFide)}
	for _, a := range x.attacks {
		s.attacks = append(s.attacks, one(a))
	}
	return s
}

// apcer is the highest over the species; those without a response, or not drawn, do not count. NaN if none does.
func (s *padSet) apcer(t float64) float64 {
	worst := math.NaN()
	for i := range s.attacks {
		if a := 1 - s.attacks[i].under(t); !(a <= worst) && !math.IsNaN(a) {
			worst = a
		}
	}
	return worst
}

func (s *padSet) bpcer(t float64) float64 { return s.bonaFide.under(t) }

// thresholds are all scores ascending and one over them.
func (s *padSet) thresholds() []float64 {
	all := slices.Clone(s.bonaFide.v)
	for _, a := range s.attacks {
		all = append(all, a.v...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) == 0 {
		return []float64{0}
	}
	return append(all, math.Nextafter(all[len(all)-1], math.Inf(1)))
}

// at is the lowest threshold whose APCER is at most the target.
func (s *padSet) at(ts []float64, target float64) float64 {
	i, _ := slices.BinarySearchFunc(ts, target, func(t, target float64) int {
		if s.apcer(t) <= target {
			return 1
		}
		return -1
	})
	return ts[min(i, len(ts)-1)]
}

// figures are BPCER at the threshold, at each APCER, then APCER at the threshold per species.
func (x *pad) figures(times []uint32) []float64 {
	s := x.set(times)
	ts := s.thresholds()
	out := []float64{s.bpcer(x.threshold)}
	for _, target := range apcerTargets {
		out = append(out, s.bpcer(s.at(ts, target)))
	}
	for i := range s.attacks {
		out = append(out, 1-s.attacks[i].under(x.threshold))
	}
	return out
}

func (x *pad) result(rows [][]float64) AttackResult {
	f, s := x.figures(nil), x.set(nil)
	ts := s.thresholds()
	n := len(x.bonaFide)
	out := AttackResult{Threshold: x.threshold, BPCER: padEstimate(f[0], rows, 0, n), APCER: s.apcer(x.threshold)}
	for i, target := range apcerTargets {
		t := s.at(ts, target)
		out.At = append(out.At, BPCERAt{Target: target, APCER: s.apcer(t), Threshold: t, BPCER: padEstimate(f[1+i], rows, 1+i, n)})
	}
	shown := map[string]int{}
	for _, p := range x.list {
		shown[p.Species]++
	}
	for i, name := range x.names {
		k := 1 + len(apcerTargets) + i
		m := len(x.attacks[i])
		if m == 0 {
			f[k] = 0 // no response, so none was taken for bona fide; APNRR is 1
		}
		out.Species = append(out.Species, Species{
			Name: name, Presentations: shown[name], APCER: padEstimate(f[k], rows, k, m), APNRR: 1 - float64(m)/float64(shown[name]),
		})
	}
	out.BPNRR = 1 - float64(n)/float64(shown[""])
	out.Curve, out.EER, out.EERAt = s.curve(ts)
	var attacks []int
	for _, a := range x.attacks {
		attacks = append(attacks, a...)
	}
	out.Histogram = histogram(s.bonaFide.v, x.values(attacks))
	out.Missed, out.Refused = x.worst(attacks, true), x.worst(x.bonaFide, false)
	return out
}

// padEstimate is estimate for replicates that drew presentations.
func padEstimate(value float64, rows [][]float64, i, n int) Estimate {
	e := estimate(value, rows, i, n)
	if e.Method == ByBootstrap {
		e.Method = ByPresentations
	}
	return e
}

func (x *pad) values(which []int) (v []float64) {
	for _, i := range which {
		v = append(v, x.scores[i])
	}
	return v
}

// curve are the operating points and where they meet, joined by straight lines.
func (s *padSet) curve(ts []float64) (points []Point, eer, at float64) {
	eer = math.NaN()
	last := Point{X: 1, Y: 0}
	for _, t := range ts {
		p := Point{X: s.apcer(t), Y: s.bpcer(t), Threshold: t}
		if math.IsNaN(eer) && p.Y >= p.X {
			over, under := last.X-last.Y, p.Y-p.X
			eer, at = p.X, t
			if over+under > 0 {
				eer = last.X + over/(over+under)*(p.X-last.X)
			}
		}
		if p.X != last.X || p.Y != last.Y || len(points) == 0 {
			points = append(points, p)
		}
		last = p
	}
	return points, eer, at
}

func (x *pad) worst(which []int, high bool) (out []Presented) {
	which = slices.Clone(which)
	slices.SortStableFunc(which, func(a, b int) int {
		if high {
			a, b = b, a
		}
		switch {
		case x.scores[a] < x.scores[b]:
			return -1
		case x.scores[a] > x.scores[b]:
			return 1
		}
		return 0
	})
	for _, i := range which[:min(len(which), worstPairs)] {
		out = append(out, Presented{x.list[i].ID, x.scores[i]})
	}
	return out
}
