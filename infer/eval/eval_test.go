package eval

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const protocol = `2 2
A 1 2
B 1 3

A 1 B 1
A 2 C 1
D 1 2
E 4 5
D 1 E 1
D 2 F 1
`

func TestParsePairs(t *testing.T) {
	got, err := ParsePairs(strings.NewReader(strings.ReplaceAll(protocol, " ", "\t")))
	if err != nil {
		t.Fatal(err)
	}
	want := []Pair{
		{"A", "A", 1, 2, true, 0, 0}, {"B", "B", 1, 3, true, 0, 1}, {"A", "B", 1, 1, false, 0, 2}, {"A", "C", 2, 1, false, 0, 3},
		{"D", "D", 1, 2, true, 1, 4}, {"E", "E", 4, 5, true, 1, 5}, {"D", "E", 1, 1, false, 1, 6}, {"D", "F", 2, 1, false, 1, 7},
	}
	if len(got) != len(want) {
		t.Fatalf("%d pairs", len(got))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("pair %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestParsePairsRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "line 0"},
		{"blank", "\n \n", "line 2"},
		{"one number", "2\n", "line 1"},
		{"no numbers", "two folds\n", "line 1"},
		{"no folds", "0 2\n", "line 1"},
		{"negative", "-1 -1\n", "line 1"},
		{"too many", "10000000 10000000\n", "line 1"},
		{"overflow", "9223372036854775807 9223372036854775807\n", "line 1"},
		{"cut off", "2 2\nA 1 2\n", "line 2: the protocol ends after 1 of 8 pairs"},
		{"mated where non-mated is due", "1 1\nA 1 2\nA 1 2\n", "line 3"},
		{"non-mated where mated is due", "1 1\nA 1 B 2\nA 1 B 2\n", "line 2"},
		{"two fields", "1 1\nA 1\n", "line 2"},
		{"five fields", "1 1\nA 1 2 3 4\n", "line 2"},
		{"picture 0", "1 1\nA 0 2\n", "line 2"},
		{"picture is a word", "1 1\nA 1 x\n", "line 2"},
		{"name with a slash", "1 1\n../A 1 2\n", "line 2"},
		{"name with a backslash", "1 1\nA\\B 1 2\n", "line 2"},
		{"name is the folder above", "1 1\n.. 1 2\n", "line 2"},
		{"name is the folder", "1 1\nA 1 2\nA 1 . 2\n", "line 3"},
		{"more behind the last", "1 1\nA 1 2\nA 1 B 1\nC 1 2\n", `line 4: "C 1 2" behind the last pair`},
		{"line too long", "1 1\n" + strings.Repeat("A", 1<<17), "too long"},
		{"line too long behind the last", "1 1\nA 1 2\nA 1 B 1\n" + strings.Repeat("A", 1<<17), "too long"},
	} {
		if p, err := ParsePairs(strings.NewReader(c.text)); err == nil || p != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.want)
		}
	}
	disk := errors.New("disk")
	if _, err := ParsePairs(io.MultiReader(strings.NewReader("1 1\nA 1 2\n"), iotest.ErrReader(disk))); !errors.Is(err, disk) {
		t.Errorf("a read error came out as %v", err)
	}
}

func FuzzParsePairs(f *testing.F) {
	f.Add([]byte(protocol))
	f.Add([]byte("1 1\nA 1 2\nA 1 B 1\n"))
	f.Add([]byte("10000000 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pairs, err := ParsePairs(bytes.NewReader(data))
		if err != nil {
			if pairs != nil {
				t.Fatal("pairs beside an error")
			}
			return
		}
		for i, p := range pairs {
			if p.position != i || p.IA < 1 || p.IB < 1 || p.Mated && p.A != p.B || strings.ContainsAny(p.A+p.B, "/\\") || i > 0 && p.Fold < pairs[i-1].Fold {
				t.Fatalf("pair %d: %+v", i, p)
			}
		}
	})
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6 }

// hand is a set whose rates can be counted on the fingers: ten mated scores, five non-mated ones.
var hand = Scores{
	Mated:    []float64{NoScore, 0.2, 0.4, 0.5, 0.6, 0.6, 0.7, 0.8, 0.8, 0.9},
	NonMated: []float64{NoScore, 0.1, 0.2, 0.3, 0.5},
}

func TestRates(t *testing.T) {
	for _, c := range []struct {
		threshold           float64
		fmr, fnmr, accuracy float64
	}{
		{-1, 0.8, 0.1, 10.0 / 15},
		{NoScore, 0.8, 0.1, 10.0 / 15}, // no score is a non-match at any threshold
		{0.2, 0.6, 0.1, 11.0 / 15},
		{0.21, 0.4, 0.2, 11.0 / 15},
		{0.4, 0.2, 0.2, 12.0 / 15},
		{0.5, 0.2, 0.3, 11.0 / 15},
		{0.51, 0, 0.4, 11.0 / 15},
		{0.95, 0, 1, 5.0 / 15},
	} {
		if fmr, fnmr, a := hand.FMR(c.threshold), hand.FNMR(c.threshold), hand.Accuracy(c.threshold); !near(fmr, c.fmr) || !near(fnmr, c.fnmr) || !near(a, c.accuracy) {
			t.Errorf("at %v: FMR %v FNMR %v accuracy %v, want %v %v %v", c.threshold, fmr, fnmr, a, c.fmr, c.fnmr, c.accuracy)
		}
	}
}

func TestChosenThresholds(t *testing.T) {
	rate, at := hand.EER()
	if !near(rate, 0.2) || at != 0.4 {
		t.Errorf("EER %v at %v, want 0.2 at 0.4", rate, at)
	}
	if b := hand.BestThreshold(); b < 0.3499 || b > 0.3501 { // halfway between 0.3 and 0.4
		t.Errorf("best threshold %v, want 0.35", b)
	}
	for _, c := range []struct {
		fmr  float64
		want float64
	}{{1, 0.1}, {0.8, 0.1}, {0.7, 0.2}, {0.2, 0.4}, {0.1, 0.6}, {0, 0.6}} {
		if got := hand.ThresholdAtFMR(c.fmr); got != c.want {
			t.Errorf("threshold at FMR %v: %v, want %v", c.fmr, got, c.want)
		}
	}
}

func TestRatesAtTheEdges(t *testing.T) {
	for _, c := range []struct {
		name     string
		s        Scores
		accuracy float64 // at the best threshold
		eer      float64
	}{
		{"perfect", Scores{Mated: []float64{0.8, 0.9}, NonMated: []float64{0.1, 0.2}}, 1, 0},
		{"upside down: rejecting all is best", Scores{Mated: []float64{0.1}, NonMated: []float64{0.8, 0.9}}, 2.0 / 3, 1},
		{"mated only", Scores{Mated: []float64{0.5, 0.6}}, 1, math.NaN()},
		{"non-mated only", Scores{NonMated: []float64{0.5, 0.6}}, 1, math.NaN()},
		{"nothing scored", Scores{Mated: []float64{NoScore}, NonMated: []float64{NoScore, NoScore, NoScore}}, 0.75, math.NaN()},
		{"a failure to acquire is no match", Scores{Mated: []float64{NoScore, NoScore, 0.9}, NonMated: []float64{0.1}}, 0.5, 2.0 / 3},
		{"a step of FNMR over the crossing", Scores{Mated: []float64{0.5, 0.5, 0.9}, NonMated: []float64{0.1, 0.2, 0.3, 0.5}}, 6.0 / 7, 2.0 / 11},
		{"a step of FMR over the crossing", Scores{Mated: []float64{0.1, 0.2, 0.6, 0.7, 0.8}, NonMated: []float64{0.5, 0.5}}, 5.0 / 7, 0.4},
		{"all equal", Scores{Mated: []float64{0.5, 0.5}, NonMated: []float64{0.5}}, 2.0 / 3, 0.5},
	} {
		if a := c.s.Accuracy(c.s.BestThreshold()); !near(a, c.accuracy) {
			t.Errorf("%s: accuracy %v at %v, want %v", c.name, a, c.s.BestThreshold(), c.accuracy)
		}
		if e, _ := c.s.EER(); !math.IsNaN(c.eer) && !near(e, c.eer) {
			t.Errorf("%s: EER %v, want %v", c.name, e, c.eer)
		}
		p := c.s.plain()
		for _, v := range p.thresholds() {
			if v == NoScore {
				t.Errorf("%s: no score is no threshold", c.name)
			}
		}
	}
	exact := Scores{Mated: []float64{1}, NonMated: []float64{1}}
	if th := exact.ThresholdAtFMR(0); exact.FMR(th) != 0 {
		t.Errorf("at FMR 0 the threshold %v gives %v", th, exact.FMR(th))
	}
}

func TestRatesDoNotDependOnTheOrder(t *testing.T) {
	s := Scores{Mated: append([]float64{}, hand.Mated...), NonMated: append([]float64{}, hand.NonMated...)}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		r.Shuffle(len(s.Mated), func(i, j int) { s.Mated[i], s.Mated[j] = s.Mated[j], s.Mated[i] })
		r.Shuffle(len(s.NonMated), func(i, j int) { s.NonMated[i], s.NonMated[j] = s.NonMated[j], s.NonMated[i] })
		s.Sort()
		if a, b := s.BestThreshold(), hand.BestThreshold(); a != b {
			t.Fatalf("best threshold %v, was %v", a, b)
		}
	}
}

// played is a system whose template is the first letter of the file's name, and whose scores come from the test.
type played struct {
	t     *testing.T
	fails map[string]error // by a part of the path
	calls map[string]int
	score func(a, b byte) float64
}

func (p *played) Extract(_ context.Context, path string) (Template, error) {
	if p.calls == nil {
		p.calls = map[string]int{}
	}
	if p.calls[path]++; p.calls[path] > 1 {
		p.t.Errorf("%s was read twice", path)
	}
	for part, err := range p.fails {
		if strings.Contains(path, part) {
			return Template{}, err
		}
	}
	return Template{Data: filepath.Base(path)[0], Quality: 0.5}, nil
}

func (p *played) Compare(a, b Template) float64 { return p.score(a.Data.(byte), b.Data.(byte)) }

func same(a, b byte) float64 {
	if a == b {
		return 0.9
	}
	return 0.1
}

func lfw(t *testing.T, text string) *Protocol {
	t.Helper()
	pairs, err := ParsePairs(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := FromPairs("d", pairs)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func quiet(string, int, int) {}

func TestRun(t *testing.T) {
	p := lfw(t, protocol)
	x := &played{t: t, score: same, fails: map[string]error{"C_0001": fmt.Errorf("%w: dark", ErrNoFace)}}
	last := map[string]int{}
	progress := func(what string, done, total int) {
		if done < last[what] || done > total {
			t.Errorf("%s: %d of %d after %d", what, done, total, last[what])
		}
		last[what] = done
	}
	a, err := Acquire(t.Context(), p.Samples, x, progress)
	if err != nil {
		t.Fatal(err)
	}
	if len(x.calls) != 11 || last["samples"] != 11 {
		t.Errorf("%d pictures read, progress %v", len(x.calls), last)
	}
	run, err := a.Run(t.Context(), "r", p, x, progress)
	if err != nil {
		t.Fatal(err)
	}
	want := []float64{0.9, 0.9, 0.1, NoScore, 0.9, 0.9, 0.1, 0.1}
	if !slices.Equal(run.Scores, want) {
		t.Errorf("scores %v, want %v", run.Scores, want)
	}
	if len(run.Failures) != 1 || run.Failures[0].ID != "C/C_0001" || run.Failures[0].Kind != "acquire" || !strings.Contains(run.Failures[0].Reason, "dark") {
		t.Errorf("failures %+v", run.Failures)
	}
	if accuracy, at := CrossValidated(p, run.Scores); accuracy != 1 || len(at) != 2 {
		t.Errorf("accuracy %v at %v", accuracy, at)
	}
	every, err := p.Every()
	if err != nil {
		t.Fatal(err)
	}
	// eleven samples: two of A, B and D, three of E, one of C and F
	if mated, non := every.Counts(); mated != 1+1+1+1 && non != 55-mated {
		t.Errorf("every sample with every other: %d mated, %d non-mated", mated, non)
	}
	if all, err := a.Run(t.Context(), "r", every, x, quiet); err != nil || len(all.Scores) != 55 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := a.Run(t.Context(), "r", &Protocol{}, x, quiet); err == nil {
		t.Error("a protocol over other samples was run")
	}
}

// TestCrossValidation: the threshold of one half is wrong for the other, and only that one may be used.
func TestCrossValidation(t *testing.T) {
	p := lfw(t, protocol)
	// the first half splits at 0.75, the second at 0.35
	accuracy, at := CrossValidated(p, []float64{0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2})
	if len(at) != 2 || !near(at[0], 0.35) || !near(at[1], 0.75) {
		t.Errorf("thresholds %v, want [0.35 0.75]", at)
	}
	if accuracy != 0.5 { // everything matches in the first half, nothing in the second
		t.Errorf("accuracy %v, want 0.5", accuracy)
	}
	if a, at := CrossValidated(lfw(t, "1 2\nA 1 2\nB 1 2\nA 1 B 1\nA 2 B 2\n"), []float64{0.9, 0.8, 0.1, 0.2}); a != 1 || len(at) != 2 {
		t.Errorf("one fold: %v at %v", a, at)
	}
	if a, _ := CrossValidated(lfw(t, "1 1\nA 1 2\nA 1 B 1\n"), []float64{0.9, 0.1}); math.IsNaN(a) {
		t.Error("two pairs give no accuracy")
	}
}

func TestRunErrors(t *testing.T) {
	p := lfw(t, protocol)
	broken := errors.New("broken")
	_, err := Collect(t.Context(), "r", p, &played{t: t, fails: map[string]error{"A_0001": broken}}, quiet)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), filepath.Join("d", "A", "A_0001.jpg")) {
		t.Errorf("%v, want the picture's name", err)
	}
	if _, err := FromPairs("d", nil); err == nil {
		t.Error("no pairs, no error")
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		x := &played{t: t, score: func(byte, byte) float64 { return v }}
		if _, err := Collect(t.Context(), "r", p, x, quiet); err == nil || !strings.Contains(err.Error(), "cannot be ranked") {
			t.Errorf("score %v: %v", v, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	x := &played{t: t, score: same}
	_, err = Collect(ctx, "r", p, x, func(string, int, int) { cancel() })
	if !errors.Is(err, context.Canceled) || len(x.calls) != 1 {
		t.Errorf("%v after %d pictures, want that it ends with the context", err, len(x.calls))
	}
}
