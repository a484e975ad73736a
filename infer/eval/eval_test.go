package eval

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
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
	Mated:    []float32{NoScore, 0.2, 0.4, 0.5, 0.6, 0.6, 0.7, 0.8, 0.8, 0.9},
	NonMated: []float32{NoScore, 0.1, 0.2, 0.3, 0.5},
}

func TestRates(t *testing.T) {
	for _, c := range []struct {
		threshold           float32
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
		want float32
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
		{"perfect", Scores{Mated: []float32{0.8, 0.9}, NonMated: []float32{0.1, 0.2}}, 1, 0},
		{"upside down: rejecting all is best", Scores{Mated: []float32{0.1}, NonMated: []float32{0.8, 0.9}}, 2.0 / 3, 1},
		{"mated only", Scores{Mated: []float32{0.5, 0.6}}, 1, math.NaN()},
		{"non-mated only", Scores{NonMated: []float32{0.5, 0.6}}, 1, math.NaN()},
		{"nothing scored", Scores{Mated: []float32{NoScore}, NonMated: []float32{NoScore, NoScore, NoScore}}, 0.75, math.NaN()},
		{"a failure to acquire is no match", Scores{Mated: []float32{NoScore, NoScore, 0.9}, NonMated: []float32{0.1}}, 0.5, 2.5 / 3},
		{"all equal", Scores{Mated: []float32{0.5, 0.5}, NonMated: []float32{0.5}}, 2.0 / 3, 0.5},
	} {
		if a := c.s.Accuracy(c.s.BestThreshold()); !near(a, c.accuracy) {
			t.Errorf("%s: accuracy %v at %v, want %v", c.name, a, c.s.BestThreshold(), c.accuracy)
		}
		if e, _ := c.s.EER(); !math.IsNaN(c.eer) && !near(e, c.eer) {
			t.Errorf("%s: EER %v, want %v", c.name, e, c.eer)
		}
		for _, v := range c.s.thresholds() {
			if v == NoScore {
				t.Errorf("%s: no score is no threshold", c.name)
			}
		}
	}
	exact := Scores{Mated: []float32{1}, NonMated: []float32{1}}
	if th := exact.ThresholdAtFMR(0); exact.FMR(th) != 0 {
		t.Errorf("at FMR 0 the threshold %v gives %v", th, exact.FMR(th))
	}
}

func TestRatesDoNotDependOnTheOrder(t *testing.T) {
	s := Scores{Mated: append([]float32{}, hand.Mated...), NonMated: append([]float32{}, hand.NonMated...)}
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

// play runs a protocol whose pictures are played: the template is the person's letter, the score comes from the test.
func play(t *testing.T, text string, noFace string, score Scorer) (*Outcome, int, error) {
	t.Helper()
	pairs, err := ParsePairs(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	progress := 0
	out, err := Run(t.Context(), "d", pairs, func(_ context.Context, path string) (Template, error) {
		calls[path]++
		if calls[path] > 1 {
			t.Errorf("%s was read twice", path)
		}
		if strings.Contains(path, noFace) {
			return Template{}, fmt.Errorf("%w: dark", ErrNoFace)
		}
		return Template{Values: []int8{int8(path[2])}, Scale: 1}, nil
	}, score, func(done, total int) {
		if progress++; done != progress || total < done {
			t.Errorf("progress %d of %d at call %d", done, total, progress)
		}
	})
	return out, len(calls), err
}

func TestRun(t *testing.T) {
	out, pictures, err := play(t, protocol, "C_0001", func(a, b Template) float32 {
		if a.Values[0] == b.Values[0] {
			return 0.9
		}
		return 0.1
	})
	if err != nil {
		t.Fatal(err)
	}
	if pictures != 11 || out.Pictures != 10 || len(out.NoFace) != 1 || out.NoFace[0] != "d/C/C_0001.jpg" {
		t.Errorf("%d pictures, %d templates, without a face %v", pictures, out.Pictures, out.NoFace)
	}
	want := []float32{0.9, 0.9, 0.1, NoScore, 0.9, 0.9, 0.1, 0.1}
	for i, v := range out.PerPair {
		if v != want[i] {
			t.Errorf("scores %v, want %v", out.PerPair, want)
			break
		}
	}
	// ten templates: two of A, B and D, three of E, one of F
	if len(out.Cross.Mated) != 1+1+1+3 || len(out.Cross.NonMated) != 45-6 || out.Cross.Mated[0] != 0.9 || out.Cross.NonMated[len(out.Cross.NonMated)-1] != 0.1 {
		t.Errorf("every picture with every other: %d mated, %d non-mated", len(out.Cross.Mated), len(out.Cross.NonMated))
	}
	if out.Accuracy != 1 || len(out.Thresholds) != 2 || len(out.Scores.Mated) != 4 || len(out.Scores.NonMated) != 4 {
		t.Errorf("%+v", out)
	}
}

// TestCrossValidation: the threshold of one half is wrong for the other, and only that one may be used.
func TestCrossValidation(t *testing.T) {
	pairs, err := ParsePairs(strings.NewReader(protocol))
	if err != nil {
		t.Fatal(err)
	}
	o := Outcome{PerPair: []float32{0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2}} // first half splits at 0.75, second at 0.35
	o.crossValidate(pairs)
	if len(o.Thresholds) != 2 || !near(float64(o.Thresholds[0]), 0.35) || !near(float64(o.Thresholds[1]), 0.75) {
		t.Errorf("thresholds %v, want [0.35 0.75]", o.Thresholds)
	}
	if o.Accuracy != 0.5 { // everything matches in the first half, nothing in the second
		t.Errorf("accuracy %v, want 0.5", o.Accuracy)
	}
	one, err := ParsePairs(strings.NewReader("1 2\nA 1 2\nB 1 2\nA 1 B 1\nA 2 B 2\n"))
	if err != nil {
		t.Fatal(err)
	}
	o = Outcome{PerPair: []float32{0.9, 0.8, 0.1, 0.2}}
	if o.crossValidate(one); o.Accuracy != 1 || len(o.Thresholds) != 2 {
		t.Errorf("one fold: %+v", o)
	}
	least, _ := ParsePairs(strings.NewReader("1 1\nA 1 2\nA 1 B 1\n"))
	o = Outcome{PerPair: []float32{0.9, 0.1}}
	if o.crossValidate(least); math.IsNaN(o.Accuracy) {
		t.Error("two pairs give no accuracy")
	}
}

func TestRunErrors(t *testing.T) {
	pairs, _ := ParsePairs(strings.NewReader(protocol))
	broken := errors.New("broken")
	_, err := Run(t.Context(), "d", pairs, func(context.Context, string) (Template, error) { return Template{}, broken }, nil, func(int, int) {})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "d/A/A_0001.jpg") {
		t.Errorf("%v, want the picture's name", err)
	}
	if _, err := Run(t.Context(), "d", nil, nil, nil, nil); err == nil {
		t.Error("no pairs, no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err = Run(ctx, "d", pairs, func(context.Context, string) (Template, error) {
		n++
		cancel()
		return Template{}, nil
	}, nil, func(int, int) {})
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%v after %d pictures, want that it ends with the context", err, n)
	}
}
