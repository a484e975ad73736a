package kernels

import (
	"math"
	"math/rand/v2"
	"testing"
)

func randomInt8(r *rand.Rand, n int) []int8 {
	out := make([]int8, n)
	for i := range out {
		out[i] = int8(r.UintN(256))
	}
	return out
}

func naive(a, b []int8) (sum int64) {
	for i := range a {
		sum += int64(a[i]) * int64(b[i])
	}
	return sum
}

func TestDotRowsAtEveryLength(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := 0; n <= 300; n++ {
		for _, pad := range []int{0, 1, 63} {
			stride := n + pad
			rows := randomInt8(r, 4*stride+n) // the last row needs no padding
			probe := randomInt8(r, n)
			got := make([]int32, 5)
			DotRows(got, rows, stride, probe)
			for i, v := range got {
				if want := naive(rows[i*stride:][:n], probe); int64(v) != want {
					t.Fatalf("length %d stride %d row %d: %d, want %d", n, stride, i, v, want)
				}
			}
		}
	}
}

func TestDotRowsAtTheExtremes(t *testing.T) {
	for _, c := range []struct{ a, b int8 }{{-128, -128}, {-128, 127}, {127, 127}, {127, -128}} {
		for _, n := range []int{1, 1024, 131071} {
			rows, probe := make([]int8, n), make([]int8, n)
			for i := range n {
				rows[i], probe[i] = c.a, c.b
			}
			got := make([]int32, 1)
			DotRows(got, rows, n, probe)
			if want := int64(n) * int64(c.a) * int64(c.b); int64(got[0]) != want {
				t.Errorf("%d values of %d*%d: %d, want %d", n, c.a, c.b, got[0], want)
			}
		}
	}
}

func TestDotRowsRefusesShortRows(t *testing.T) {
	DotRows(nil, nil, 4, make([]int8, 4))
	mustPanic(t, "short stride", func() { DotRows(make([]int32, 1), make([]int8, 8), 3, make([]int8, 4)) })
	mustPanic(t, "short rows", func() { DotRows(make([]int32, 2), make([]int8, 11), 8, make([]int8, 4)) })
}

func TestQuantizeUnit(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, n := range []int{1, 2, 128, 512} {
		for _, size := range []float32{1e-30, 1, 1e30} {
			v := make([]float32, n)
			for i := range v {
				v[i] = float32(r.NormFloat64()) * size
			}
			q := make([]int8, n)
			scale := QuantizeUnit(q, v)
			self := float64(naive(q, q)) * float64(scale) * float64(scale)
			if math.Abs(self-1) > 1e-6 {
				t.Errorf("%d values of size %v: a template scores %v against itself", n, size, self)
			}
			var dot, norm float64
			for i := range v {
				dot += float64(v[i]) * float64(q[i])
				norm += float64(v[i]) * float64(v[i])
			}
			if c := dot * float64(scale) / math.Sqrt(norm); c < 0.9995 {
				t.Errorf("%d values of size %v: cosine with the original %v", n, size, c)
			}
			for i := range q {
				if q[i] == -128 {
					t.Errorf("value %d is -128: the range is symmetric", i)
				}
			}
		}
	}
}

func TestVectorsWithoutADirection(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name string
		v    []float32
	}{
		{"zeros", []float32{0, 0, 0, 0}},
		{"NaN first", []float32{nan, 1, 2, 3}},
		{"NaN in the middle", []float32{1, 2, nan, 3}},
		{"NaN last", []float32{1, 2, 3, nan}},
		{"infinity", []float32{1, inf, 2, 3}},
		{"minus infinity", []float32{1, 2, 3, -inf}},
		{"NaN and infinity", []float32{nan, 2, 3, -inf}},
		{"empty", nil},
	} {
		q := make([]int8, len(c.v))
		for i := range q {
			q[i] = 77
		}
		if s := QuantizeUnit(q, c.v); s != 0 {
			t.Errorf("%s: scale %v, want 0", c.name, s)
		}
		for i, v := range q {
			if v != 0 {
				t.Errorf("%s: value %d is %d, want 0", c.name, i, v)
			}
		}
		if l := Normalize(append([]float32(nil), c.v...)); l != 0 {
			t.Errorf("%s: length %v, want 0", c.name, l)
		}
	}
}

func TestNormalize(t *testing.T) {
	v := []float32{3, 0, -4}
	if l := Normalize(v); l != 5 || !near(v[0], 0.6, 1e-6) || !near(v[2], -0.8, 1e-6) {
		t.Errorf("length %v, values %v", l, v)
	}
}

func BenchmarkDotRows(b *testing.B) {
	const n, rows = 128, 10000
	r := rand.New(rand.NewPCG(1, 1))
	gallery, probe, dst := randomInt8(r, n*rows), randomInt8(r, n), make([]int32, rows)
	b.SetBytes(n * rows)
	b.ReportAllocs()
	for b.Loop() {
		DotRows(dst, gallery, n, probe)
	}
}

func BenchmarkQuantizeUnit(b *testing.B) {
	v, q := make([]float32, 128), make([]int8, 128)
	for i := range v {
		v[i] = float32(i) - 60
	}
	b.ReportAllocs()
	for b.Loop() {
		QuantizeUnit(q, v)
	}
}
