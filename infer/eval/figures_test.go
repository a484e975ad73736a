package eval

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest"
)

// drawn is a protocol of n subjects with 3 samples each, and scores that tell mates apart by `apart` standard deviations.
func drawn(n int, apart float64, seed uint64) (*Protocol, *Run) {
	var samples []Sample
	for s := range n {
		for i := range 3 {
			samples = append(samples, Sample{ID: strconv.Itoa(s) + "_" + strconv.Itoa(i), Subject: strconv.Itoa(s)})
		}
	}
	p, _ := (&Protocol{Samples: samples}).Every()
	r := rand.New(rand.NewPCG(seed, 0))
	run := &Run{Name: "r" + strconv.FormatUint(seed, 10), Scores: make([]float64, len(p.Comparisons))}
	for i, c := range p.Comparisons {
		run.Scores[i] = r.NormFloat64()
		if c.Mated {
			run.Scores[i] += apart
		}
	}
	return p, run
}

// TestWeightsAreCopies: a weighted set has the rates of the set in which every comparison is written down as often.
func TestWeightsAreCopies(t *testing.T) {
	p, run := drawn(6, 1, 7)
	run.Scores[3], run.Scores[11] = NoScore, NoScore
	_, of := subjects(p.Samples)
	s := newSorted(p, of, run.Scores, nil)
	times := []uint32{2, 0, 1, 3, 0, 1}
	var written Scores
	for i, c := range p.Comparisons {
		n := times[of[c.A]]
		if !c.Mated {
			n *= times[of[c.B]]
		}
		for range n {
			written.add(c.Mated, run.Scores[i])
		}
	}
	written.Sort()
	got, want := s.set(times), written.plain()
	for _, at := range want.thresholds() {
		if !near(got.fmr(at), want.fmr(at)) || !near(got.fnmr(at), want.fnmr(at)) || !near(got.accuracy(at), want.accuracy(at)) {
			t.Fatalf("at %v: %v %v, want %v %v", at, got.fmr(at), got.fnmr(at), want.fmr(at), want.fnmr(at))
		}
	}
	ge, _ := got.eer()
	we, _ := want.eer()
	if !near(ge, we) {
		t.Errorf("EER %v, want %v", ge, we)
	}
	for _, f := range []float64{0, 0.01, 0.1, 0.5, 1} {
		if g, w := got.fnmr(got.atFMR(f)), want.fnmr(want.atFMR(f)); !near(g, w) {
			t.Errorf("FNMR at FMR %v: %v, want %v", f, g, w)
		}
	}
}

// TestEERAgainstASearch compares the two binary searches with a walk over all operating points.
func TestEERAgainstASearch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		s := Scores{}
		for range 1 + r.IntN(12) {
			s.Mated = append(s.Mated, float64(r.IntN(8)))
		}
		for range 1 + r.IntN(12) {
			s.NonMated = append(s.NonMated, float64(r.IntN(8))-2)
		}
		s.Sort()
		p := s.plain()
		nearest, gap := 0.0, 2.0
		for _, at := range p.thresholds() {
			if d := math.Abs(s.FMR(at) - s.FNMR(at)); d < gap {
				nearest, gap = (s.FMR(at)+s.FNMR(at))/2, d
			}
		}
		if _, at := s.EER(); !near(p.nearest(at), nearest) {
			t.Fatalf("%v: nearest %v, want %v", s, p.nearest(at), nearest)
		}
		last, want := Point{X: 1}, -1.0
		for _, at := range append(p.thresholds(), p.over()) {
			q := Point{X: s.FMR(at), Y: s.FNMR(at)}
			if q.Y >= q.X {
				if want = q.X; last.X-last.Y+q.Y-q.X > 0 {
					want = last.X + (last.X-last.Y)/(last.X-last.Y+q.Y-q.X)*(q.X-last.X)
				}
				break
			}
			last = q
		}
		if got, at := s.EER(); !near(got, want) || p.fvcEER(at)[0] > got+1e-9 || p.fvcEER(at)[1] < got-1e-9 {
			t.Fatalf("%v: EER %v, want %v; interval %v", s, got, want, p.fvcEER(at))
		}
	}
}

func TestVerify(t *testing.T) {
	p, good := drawn(30, 4, 1)
	_, poor := drawn(30, 2.5, 2)
	v, err := Verify(p, []*Run{good, poor}, Options{Seed: 5, Replicates: 300})
	if err != nil {
		t.Fatal(err)
	}
	if v.Subjects != 30 || v.Mated != 90 || v.NonMated != 90*89/2-90 || v.Replicates != 300 || len(v.Differences) != 1 {
		t.Fatalf("%+v", v)
	}
	for i, want := range []float64{0.0228, 0.1056} { // half the distance, of the normal distribution
		e := v.Runs[i].EER
		if *e.Low > e.Value || *e.High < e.Value || *e.Low > want || *e.High < want || *e.High-*e.Low > 0.1 {
			t.Errorf("EER %v (%v to %v), expected about %v", e.Value, *e.Low, *e.High, want)
		}
	}
	d := v.Differences[0].Rates["eer"]
	if d.Value != v.Runs[1].EER.Value-v.Runs[0].EER.Value || !(*d.Low > 0) || !(*d.High > d.Value) {
		t.Errorf("difference %v (%v to %v)", d.Value, *d.Low, *d.High)
	}
	again, _ := Verify(p, []*Run{good, poor}, Options{Seed: 5, Replicates: 300})
	other, _ := Verify(p, []*Run{good, poor}, Options{Seed: 6, Replicates: 300})
	if *again.Runs[0].EER.High != *v.Runs[0].EER.High || *other.Runs[1].EER.High == *v.Runs[1].EER.High {
		t.Error("the seed does not decide the bounds")
	}
	worst := v.Runs[1].WorstMated
	if len(worst) != worstPairs || !slices.IsSortedFunc(worst, func(a, b Scored) int { return int(math.Copysign(1, a.Score-b.Score)) }) {
		t.Errorf("worst mated %v", worst)
	}
	if worst[0].Score != slices.MinFunc(worst, func(a, b Scored) int { return int(math.Copysign(1, a.Score-b.Score)) }).Score || worst[0].A[:strings.Index(worst[0].A, "_")] != worst[0].B[:strings.Index(worst[0].B, "_")] {
		t.Errorf("worst mated pair %v", worst[0])
	}
	total := 0
	for _, n := range v.Runs[0].Histogram.B {
		total += n
	}
	if total != v.NonMated {
		t.Errorf("%d of %d non-mated scores in the histogram", total, v.NonMated)
	}
}

// TestTheSameRunTwiceDiffersByNothing: replicates are paired.
func TestTheSameRunTwiceDiffersByNothing(t *testing.T) {
	p, a := drawn(10, 2, 3)
	b := *a
	b.Name = "copy"
	v, err := Verify(p, []*Run{a, &b}, Options{Seed: 1, Replicates: 50})
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range v.Differences[0].Rates {
		if d.Value != 0 || *d.Low != 0 || *d.High != 0 {
			t.Errorf("%s: %v (%v to %v)", name, d.Value, *d.Low, *d.High)
		}
	}
}

func TestFailuresAndTheRuleOfThree(t *testing.T) {
	p, run := drawn(10, 20, 4)
	run.Failures = []Failure{{ID: p.Samples[0].ID, Kind: "acquire"}, {ID: p.Samples[4].ID, Kind: "enrol"}}
	for i, c := range p.Comparisons {
		if c.A == 0 || c.B == 0 || c.A == 4 || c.B == 4 {
			run.Scores[i] = NoScore
		}
	}
	v, err := Verify(p, []*Run{run}, Options{Seed: 1, Replicates: 50})
	if err != nil {
		t.Fatal(err)
	}
	r := v.Runs[0]
	if !near(r.FTA.Value, 1.0/30) || !near(r.FTE.Value, 1.0/30) || r.Unscored != 29+28 {
		t.Errorf("FTA %v, FTE %v, %d not made", r.FTA, r.FTE, r.Unscored)
	}
	// four of thirty mated comparisons failed; all that were made are right
	if f := r.Rates[0].FNMR; !near(f.Value, 4.0/30) || f.Method != ByBootstrap || r.Matching == nil || r.Matching.EER != 0 || r.Matching.Rates[0][1] != 0 {
		t.Errorf("FNMR %+v, of those made %+v", f, r.Matching)
	}
	p, run = drawn(10, 50, 5)
	if v, err = Verify(p, []*Run{run}, Options{Replicates: 50}); err != nil {
		t.Fatal(err)
	}
	if e := v.Runs[0].EER; e.Value != 0 || e.Method != ByThree || !near(*e.High, 0.1) { // 3/30
		t.Errorf("EER %+v", e)
	}
	if f := v.Runs[0].Rates[0].FMR; f.Value != 0 && f.Method != ByBootstrap || v.Runs[0].Rates[2].Measured {
		t.Errorf("FMR %+v; 405 comparisons cannot measure 1e-4", f)
	}
}

func TestVerifyRefuses(t *testing.T) {
	p, a := drawn(4, 1, 1)
	short := &Run{Name: "short", Scores: a.Scores[1:]}
	for name, runs := range map[string][]*Run{"none": nil, "two of a name": {a, a}, "short": {short}, "no name": {{Scores: a.Scores}}} {
		if _, err := Verify(p, runs, Options{}); err == nil {
			t.Errorf("%s was measured", name)
		}
	}
	if _, err := Verify(&Protocol{}, []*Run{{Name: "x"}}, Options{}); err == nil {
		t.Error("a protocol without comparisons was measured")
	}
}

func TestReplicatesAreLowered(t *testing.T) {
	for _, c := range [][3]int{{1000, 3000, 1000}, {1000, 8_000_000, 500}, {1000, 50_000_000, 100}, {50, 50_000_000, 50}, {0, 10, 0}} {
		if got := replicatesFor(c[0], c[1]); got != c[2] {
			t.Errorf("%d replicates of %d comparisons: %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

// letters is a system whose template is a number in the file's name, and whose score is minus their distance.
func letters(t *testing.T) *played {
	return &played{t: t, score: func(a, b byte) float64 { return -math.Abs(float64(a) - float64(b)) }}
}

func TestIdentify(t *testing.T) {
	// "a", "k" and "u" are enrolled; the probes of a and k are near, that of u is nearer to k; strangers are m and z
	s := &Search{
		Samples: []Sample{{"1", "a", "1"}, {"2", "b", "1"}, {"3", "k", "2"}, {"4", "k2", "2"}, {"5", "u", "3"}, {"6", "n", "3"}, {"7", "m", "4"}, {"8", "z", "5"}},
		Enrol:   [][]int{{0}, {2}, {4}}, Mated: []Probe{{1, 0}, {3, 1}, {5, 2}}, Others: []int{6, 7}, Sizes: []int{1, 3},
	}
	x := letters(t)
	a, err := Acquire(t.Context(), s.Samples, x, quiet)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(t.Context(), "r", a, x, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Mated[0]; !c[0].InGallery || !c[0].First || c[0].Score != -1 || c[1].InGallery || c[2].InGallery {
		t.Errorf("gallery of 1: %+v", c)
	}
	if c := r.Mated[1]; !c[0].First || !c[1].First || c[2].First || c[2].Score != -7 {
		t.Errorf("gallery of 3: %+v", c)
	}
	if !slices.Equal(r.Others[0], []float64{-12, -25}) || !slices.Equal(r.Others[1], []float64{-2, -5}) {
		t.Errorf("strangers %v", r.Others)
	}
	v, err := Identify(s, []*SearchRun{r}, Options{Seed: 1, Replicates: 20})
	if err != nil {
		t.Fatal(err)
	}
	one, three := v.Runs[0].Sizes[0], v.Runs[0].Sizes[1]
	if one.Probes != 1 || one.Rank1.Value != 1 || one.Rates[0].FNIR.Value != 0 {
		t.Errorf("gallery of 1: %+v", one)
	}
	if three.Probes != 3 || !near(three.Rank1.Value, 2.0/3) || !near(three.Rates[0].FNIR.Value, 1.0/3) || three.Rates[0].FPIR != 0 || three.Rates[0].Threshold != -1 || three.Rates[0].Measured {
		t.Errorf("gallery of 3: %+v", three)
	}
}

func TestAttacks(t *testing.T) {
	list := []Presentation{{ID: "b1"}, {ID: "b2"}, {ID: "b3"}, {ID: "b4"}, {ID: "p1", Species: "print"}, {ID: "p2", Species: "print"}, {ID: "r1", Species: "replay"}, {ID: "r2", Species: "replay"}, {ID: "m1", Species: "mask"}}
	run := &LivenessRun{Name: "r", Scores: []float64{0.9, 0.8, 0.4, NoScore, 0.1, 0.7, 0.2, NoScore, NoScore}}
	v, err := Attacks(list, []*LivenessRun{run}, []float64{0.5}, Options{Seed: 1, Replicates: 50})
	if err != nil {
		t.Fatal(err)
	}
	r := v.Runs[0]
	if v.BonaFide != 4 || v.Attacks != 5 || !near(r.BPCER.Value, 1.0/3) || r.APCER != 0.5 || r.BPNRR != 0.25 {
		t.Errorf("BPCER %v, APCER %v, BPNRR %v", r.BPCER, r.APCER, r.BPNRR)
	}
	want := []Species{{Name: "mask", Presentations: 1, APNRR: 1}, {Name: "print", Presentations: 2}, {Name: "replay", Presentations: 2, APNRR: 0.5}}
	for i, s := range r.Species {
		if s.Name != want[i].Name || s.Presentations != want[i].Presentations || s.APNRR != want[i].APNRR || (s.Name == "print") != (s.APCER.Value == 0.5) {
			t.Errorf("species %+v", s)
		}
	}
	for _, x := range r.At { // no threshold under 0.8 keeps out the print of 0.7
		if x.Threshold != 0.8 || x.APCER != 0 || !near(x.BPCER.Value, 1.0/3) {
			t.Errorf("%+v", x)
		}
	}
	if r.Missed[0].ID != "p2" || r.Refused[0].ID != "b3" || !near(r.EER, 1.0/3) {
		t.Errorf("missed %v, refused %v, EER %v", r.Missed, r.Refused, r.EER)
	}
	none := &LivenessRun{Name: "n", Scores: slices.Repeat([]float64{NoScore}, len(list))}
	if _, err := Attacks(list, []*LivenessRun{none}, []float64{0.5}, Options{}); err == nil {
		t.Error("a run without any response was measured")
	}
	if _, err := Attacks(list[:4], nil, nil, Options{}); err == nil {
		t.Error("a list without attacks was measured")
	}
}

func TestAtPrecision(t *testing.T) {
	m := &infer.Manifest{ID: "m", Stages: []infer.Stage{
		{Name: "detect", File: "d.onnx"},
		{Name: "embed", File: "e.onnx", Variants: []infer.Variant{
			{Precision: "int8", Dialect: infer.DialectTensorRT, File: "t.onnx"}, {Precision: "int8", Dialect: infer.DialectCPU, File: "c.onnx"}}},
	}}
	for precision, want := range map[string]string{"fp32": "e.onnx", "int8": "c.onnx"} {
		c, err := AtPrecision(m, precision, infer.DialectCPU)
		if err != nil || c.Stages[0].File != "d.onnx" || c.Stages[1].File != want || c.Stages[1].Variants != nil {
			t.Errorf("%s: %+v, %v", precision, c, err)
		}
	}
	if m.Stages[1].File != "e.onnx" || len(m.Stages[1].Variants) != 2 {
		t.Error("the manifest that was passed has changed")
	}
	if _, err := AtPrecision(m, "fp16", infer.DialectCPU); err == nil || !strings.Contains(err.Error(), "it has fp32, int8 (qdq-s8), int8 (qdq-u8)") {
		t.Errorf("fp16: %v", err)
	}
}

// TestOpenFingerprints: the sizes that FVC publish for their B sets.
func TestOpenFingerprints(t *testing.T) {
	for _, set := range []string{"fvc2002_DB1_B", "fvc2002_DB3_B", "fvc2004_DB2_B", "fvc2004_DB3_B"} {
		for impostors, want := range map[Impostors]int{FirstImpressions: 45, EveryImpression: 2880} {
			p, err := FVC(filepath.Join(infertest.Data(t, "fingerprints"), set), impostors)
			if err != nil {
				t.Fatal(err)
			}
			if mated, non := p.Counts(); mated != 280 || non != want {
				t.Errorf("%s, %s: %d mated, %d non-mated", set, impostors, mated, non)
			}
		}
	}
}
