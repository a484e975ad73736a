package sched

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

const ms = time.Millisecond

// near reports whether a is within part of b.
func near(a, b time.Duration, part float64) bool {
	return float64((a - b).Abs()) <= part*float64(b)
}

func TestCurveLearnsMeanAndDeviation(t *testing.T) {
	var c Curve
	if m, d := c.Predict(1); m != 0 || d != 0 || c.Known() {
		t.Fatalf("an empty curve says %v ± %v", m, d)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		c.Observe(1, 20*ms+time.Duration(r.Int64N(int64(8*ms)))) // uniform: mean 24 ms, mean deviation 2 ms
	}
	if m, d := c.Predict(1); !near(m, 24*ms, 0.05) || !near(d, 2*ms, 0.4) {
		t.Errorf("learned %v ± %v, should be 24 ms ± 2 ms", m, d)
	}
}

func TestOneHiccupMovesTheCurveALittleAndALastingChangeMovesIt(t *testing.T) {
	var c Curve
	for range 100 {
		c.Observe(1, 20*ms)
	}
	c.Observe(1, 10*time.Second)
	if m, _ := c.Predict(1); m > 21*ms {
		t.Errorf("after one hiccup of 10 s the mean is %v", m)
	}
	for range 150 {
		c.Observe(1, 60*ms)
	}
	if m, _ := c.Predict(1); !near(m, 60*ms, 0.1) {
		t.Errorf("after 150 runs of 60 ms the mean is %v", m)
	}
	for range 150 {
		c.Observe(1, 10*ms)
	}
	if m, _ := c.Predict(1); !near(m, 10*ms, 0.1) {
		t.Errorf("after 150 runs of 10 ms the mean is %v", m)
	}
}

func TestCurveInterpolates(t *testing.T) {
	var c Curve
	c.Observe(2, 20*ms)
	c.Observe(8, 50*ms)
	for _, w := range []struct {
		size int
		want time.Duration
	}{{1, 20 * ms}, {2, 20 * ms}, {4, 30 * ms}, {5, 35 * ms}, {8, 50 * ms}, {16, 100 * ms}} {
		if m, _ := c.Predict(w.size); !near(m, w.want, 1e-6) {
			t.Errorf("size %d: %v, want %v", w.size, m, w.want)
		}
	}
	before := len(c.at)
	c.Observe(0, ms)
	c.Observe(MaxSize+1, ms)
	c.Observe(3, -ms)
	if len(c.at) != before || c.at[2].runs != 0 {
		t.Error("senseless runs were learned")
	}
}

func TestKeptCurveComesBackAndWeighsLittle(t *testing.T) {
	var c Curve
	for range 100 {
		c.Observe(1, 20*ms)
		c.Observe(8, 100*ms)
	}
	b, err := c.Append(nil, "face, 2 workers")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseCurve(b, "face, 2 workers")
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 3, 8} {
		a, _ := c.Predict(size)
		if b, _ := got.Predict(size); a != b {
			t.Errorf("size %d: %v came back as %v", size, a, b)
		}
	}
	for range 12 {
		got.Observe(1, 40*ms)
	}
	if m, _ := got.Predict(1); m < 33*ms {
		t.Errorf("twelve runs of 40 ms moved a kept curve of 20 ms to %v only", m)
	}
	if _, err := ParseCurve(b, "finger"); !errors.Is(err, ErrCurve) {
		t.Errorf("the curve of another engine: %v", err)
	}
	for i := range b {
		bad := append([]byte(nil), b...)
		bad[i] ^= 4
		if _, err := ParseCurve(bad, "face, 2 workers"); !errors.Is(err, ErrCurve) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := ParseCurve(b[:i], "face, 2 workers"); !errors.Is(err, ErrCurve) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := c.Append(nil, string(make([]byte, 256))); err == nil {
		t.Error("a key of 256 bytes was kept")
	}
}

func FuzzParseCurve(f *testing.F) {
	var c Curve
	empty, _ := c.Append(nil, "k")
	f.Add(empty)
	c.Observe(1, 20*ms)
	c.Observe(8, 90*ms)
	full, _ := c.Append(nil, "k")
	f.Add(full)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCurve(b, "k")
		if err != nil {
			if !errors.Is(err, ErrCurve) {
				t.Fatalf("strange error: %v", err)
			}
			return
		}
		again, err := c.Append(nil, "k")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseCurve(again, "k"); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		for _, size := range []int{1, 7, MaxSize} {
			if m, d := c.Predict(size); m < 0 || d < 0 {
				t.Fatalf("size %d: %v ± %v", size, m, d)
			}
		}
	})
}
