package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"vigil/kernels"
)

// picture is a normalised tensor of three planes with spans of every length in it, and the levels that lead back.
func picture(r *rand.Rand, w, h int, n *kernels.Norm) (planes []float32, s *Spans, l *kernels.Levels) {
	planes, s, l = make([]float32, 3*w*h), &Spans{}, &kernels.Levels{}
	for i := range planes {
		c := i / (w * h)
		planes[i] = (float32(r.IntN(256)) - n.Mean[c]) * n.InvStd[c]
	}
	for c := range 3 {
		l.Scale[c], l.Offset[c] = 1/n.InvStd[c], n.Mean[c]+0.5
		for v := range l.Table[c] {
			l.Table[c][v] = 1.1 * float32(v) / 3 // beyond 255 for some
		}
	}
	for y := range h {
		x0 := r.IntN(w)
		s.Add(y, x0, x0+r.IntN(w-x0+1))
	}
	return planes, s, l
}

func TestMomentsEqualTheReference(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 3))
		for range 200 {
			w, h, step := 1+r.IntN(120), 1+r.IntN(40), 1+r.IntN(4)
			planes, s, _ := picture(r, w, h, &norms[1])
			got, want := s.Moments(planes[:w*h], w, step), kernels.MomentsOf(planes[:w*h], w, s.List(), step)
			near := func(a, b, scale float64) bool { return math.Abs(a-b) <= 1e-5*(1+scale) }
			if got.Count != want.Count || !near(got.Sum, want.Sum, want.Squares) || !near(got.Squares, want.Squares, want.Squares) ||
				!near(got.Laplacian, want.Laplacian, want.LaplacianSquares) || !near(got.LaplacianSquares, want.LaplacianSquares, want.LaplacianSquares) {
				t.Fatalf("%dx%d, step %d: got %+v, want %+v", w, h, step, got, want)
			}
		}
	})
}

func TestLuminanceEqualsTheReference(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(4, 4))
		for range 200 {
			w, h := 1+r.IntN(120), 1+r.IntN(40)
			planes, s, l := picture(r, w, h, &norms[r.IntN(len(norms))])
			if r.IntN(4) == 0 {
				planes[r.IntN(len(planes))] = float32(math.Inf(1))
			}
			want := make([]byte, w*h)
			want = want[:l.Luminance(want, planes, w, s.List())]
			got, counts := s.Luminance(planes, w, l)
			if len(got) != len(want) {
				t.Fatalf("%d bytes, want %d", len(got), len(want))
			}
			var sum [256]uint32
			for i := range got {
				if d := int(got[i]) - int(want[i]); d < -1 || d > 1 {
					t.Fatalf("pixel %d: %d, want %d", i, got[i], want[i])
				}
			}
			if kernels.Histogram(&sum, got); sum != *counts {
				t.Fatalf("the histogram is not that of the bytes")
			}
		}
	})
}

func TestSpansAllocateNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	planes, s, l := picture(r, 112, 112, &norms[1])
	step := func() {
		s.Reset()
		for y := range 112 {
			s.Add(y, 5, 100)
		}
		s.Moments(planes[:112*112], 112, 1)
		s.Luminance(planes, 112, l)
	}
	step()
	if n := testing.AllocsPerRun(100, step); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
