package kernels

import (
	"math"
	"math/rand/v2"
	"testing"
)

// plain leaves values as they are: tensor = 0..255, RGB.
var plain = Norm{InvStd: [3]float32{1, 1, 1}}

func near(a, b, tolerance float32) bool { return math.Abs(float64(a-b)) <= float64(tolerance) }

func TestSimilarityRecoversTheMap(t *testing.T) {
	from := []float32{10, 20, 70, 25, 40, 50, 18, 88, 61, 80}
	for _, c := range []struct {
		name                string
		scale, angle, tx, y float64
	}{
		{"identity", 1, 0, 0, 0},
		{"shift", 1, 0, -30, 12},
		{"quarter turn", 1, math.Pi / 2, 5, 5},
		{"half turn and shrink", 0.25, math.Pi, 100, 3},
		{"all", 3.5, -0.7, 12, -90},
	} {
		a, b := c.scale*math.Cos(c.angle), c.scale*math.Sin(c.angle)
		want := Affine{A: float32(a), B: float32(-b), TX: float32(c.tx), C: float32(b), D: float32(a), TY: float32(c.y)}
		to := make([]float32, len(from))
		for i := 0; i < len(from); i += 2 {
			to[i], to[i+1] = want.Apply(from[i], from[i+1])
		}
		got, ok := Similarity(from, to)
		if !ok {
			t.Fatalf("%s: no map", c.name)
		}
		for i := 0; i < len(from); i += 2 {
			if x, y := got.Apply(from[i], from[i+1]); !near(x, to[i], 1e-3) || !near(y, to[i+1], 1e-3) {
				t.Errorf("%s: point %d lands on %v,%v, want %v,%v", c.name, i/2, x, y, to[i], to[i+1])
			}
		}
		if !near(got.Scale(), float32(c.scale), 1e-4) {
			t.Errorf("%s: scale %v, want %v", c.name, got.Scale(), c.scale)
		}
	}
}

func TestSimilarityIsLeastSquares(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	from, to := make([]float32, 10), make([]float32, 10)
	for i := range from {
		from[i], to[i] = r.Float32()*100, r.Float32()*100
	}
	cost := func(m Affine) (sum float64) {
		for i := 0; i < len(from); i += 2 {
			x, y := m.Apply(from[i], from[i+1])
			sum += math.Pow(float64(x-to[i]), 2) + math.Pow(float64(y-to[i+1]), 2)
		}
		return sum
	}
	best, _ := Similarity(from, to)
	least := cost(best)
	for range 1000 { // no neighbour among the similarities is better
		da, db, dx, dy := r.Float32()-0.5, r.Float32()-0.5, r.Float32()-0.5, r.Float32()-0.5
		m := best
		m.A, m.D, m.B, m.C, m.TX, m.TY = m.A+da, m.D+da, m.B-db, m.C+db, m.TX+dx, m.TY+dy
		if c := cost(m); c < least-1e-2 {
			t.Fatalf("%+v costs %v, less than %v", m, c, least)
		}
	}
}

func TestSimilarityWithoutAnAnswer(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		name string
		from []float32
	}{
		{"one place", []float32{5, 5, 5, 5, 5, 5}},
		{"not numbers", []float32{nan, 5, 5, 7, 5, 5}},
	} {
		if m, ok := Similarity(c.from, []float32{1, 2, 3, 4, 5, 6}); ok {
			t.Errorf("%s: got %+v", c.name, m)
		}
	}
	mustPanic(t, "different lengths", func() { Similarity(make([]float32, 4), make([]float32, 6)) })
	mustPanic(t, "one point", func() { Similarity(make([]float32, 2), make([]float32, 2)) })
	mustPanic(t, "odd number", func() { Similarity(make([]float32, 5), make([]float32, 5)) })
}

func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", name)
		}
	}()
	f()
}

func TestAffineInvert(t *testing.T) {
	for _, m := range []Affine{
		{A: 1, D: 1},
		{A: 2, B: 0.5, TX: 10, C: -1, D: 3, TY: -7},
		{A: 0.01, B: -0.02, TX: 500, C: 0.02, D: 0.01, TY: 2},
	} {
		inv, ok := m.Invert()
		if !ok {
			t.Fatalf("%+v has no inverse", m)
		}
		x, y := m.Apply(13, -4)
		if x, y = inv.Apply(x, y); !near(x, 13, 1e-3) || !near(y, -4, 1e-3) {
			t.Errorf("%+v: back at %v,%v", m, x, y)
		}
	}
	for _, m := range []Affine{{}, {A: 1, B: 2, C: 2, D: 4}, {A: float32(math.NaN()), D: 1}} {
		if inv, ok := m.Invert(); ok {
			t.Errorf("%+v has the inverse %+v", m, inv)
		}
	}
}

// gradient is a picture whose channels are x, y and x+y, all below 256.
func gradient(w, h int) *Image {
	pix := make([]byte, 3*w*h)
	for y := range h {
		for x := range w {
			i := 3 * (y*w + x)
			pix[i], pix[i+1], pix[i+2] = byte(x), byte(y), byte(x+y)
		}
	}
	return &Image{Format: RGB24, Width: w, Height: h, Planes: [2]Plane{{Data: pix, StrideBytes: 3 * w}}}
}

func TestWarp(t *testing.T) {
	im := gradient(40, 30)
	const w, h = 16, 12
	for _, c := range []struct {
		name string
		m    Affine
		want func(x, y int) (r, g float32)
	}{
		{"identity", Affine{A: 1, D: 1}, func(x, y int) (float32, float32) { return float32(x), float32(y) }},
		{"shift", Affine{A: 1, D: 1, TX: 7, TY: 3}, func(x, y int) (float32, float32) { return float32(x + 7), float32(y + 3) }},
		{"half a pixel", Affine{A: 1, D: 1, TX: 0.5, TY: 0.25}, func(x, y int) (float32, float32) { return float32(x) + 0.5, float32(y) + 0.25 }},
		{"transposed", Affine{B: 1, C: 1}, func(x, y int) (float32, float32) { return float32(y), float32(x) }},
		{"enlarged", Affine{A: 0.5, D: 0.5}, func(x, y int) (float32, float32) { return float32(x) / 2, float32(y) / 2 }},
		{"shrunk", Affine{A: 2, D: 2, TX: 4, TY: 4}, func(x, y int) (float32, float32) { return float32(2*x + 4), float32(2*y + 4) }},
		{"outside", Affine{A: 1, D: 1, TX: 1000, TY: -1000}, func(int, int) (float32, float32) { return 0, 0 }},
		{"nowhere", Affine{A: float32(math.NaN()), D: 1}, func(int, int) (float32, float32) { return 0, 0 }},
		{"infinitely far", Affine{A: float32(math.Inf(1)), D: 1, TX: 5}, nil},
	} {
		dst := make([]float32, 3*w*h)
		Warp(dst, w, h, im, c.m, &plain)
		for i := 0; c.want != nil && i < w*h; i++ {
			r, g := c.want(i%w, i/w)
			if !near(dst[i], r, 1e-3) || !near(dst[w*h+i], g, 1e-3) || !near(dst[2*w*h+i], r+g, 1e-3) {
				t.Fatalf("%s: pixel %d,%d is %v,%v,%v, want %v,%v,%v", c.name, i%w, i/w, dst[i], dst[w*h+i], dst[2*w*h+i], r, g, r+g)
			}
		}
	}
}

func TestWarpFadesToBlackAtTheEdge(t *testing.T) {
	im := flat(8, 8, 200)
	dst := make([]float32, 3*1)
	for _, c := range []struct{ x, want float32 }{{-0.5, 100}, {-1, 0}, {0, 200}, {7, 200}, {7.5, 100}, {8, 0}} {
		if Warp(dst, 1, 1, im, Affine{A: 1, D: 1, TX: c.x, TY: 4}, &plain); !near(dst[0], c.want, 1e-3) {
			t.Errorf("at x=%v: %v, want %v", c.x, dst[0], c.want)
		}
	}
}

func flat(w, h int, v byte) *Image {
	pix := make([]byte, 3*w*h)
	for i := range pix {
		pix[i] = v
	}
	return &Image{Format: RGB24, Width: w, Height: h, Planes: [2]Plane{{Data: pix, StrideBytes: 3 * w}}}
}

func TestWarpAveragesWhereItShrinks(t *testing.T) {
	const n = 64
	im := flat(n, n, 0) // a chequer of single pixels: one sample a pixel would see only black or only white
	for y := range n {
		for x := range n {
			if (x+y)%2 == 1 {
				copy(im.Planes[0].Data[3*(y*n+x):], []byte{254, 254, 254})
			}
		}
	}
	dst := make([]float32, 3*4*4)
	Warp(dst, 4, 4, im, Affine{A: 8, D: 8, TX: 16, TY: 16}, &plain)
	for i, v := range dst {
		if !near(v, 127, 1) {
			t.Fatalf("value %d is %v, want the mean 127", i, v)
		}
	}
}

func TestWarpNormalises(t *testing.T) {
	im := flat(4, 4, 0)
	for i := range 16 {
		copy(im.Planes[0].Data[3*i:], []byte{10, 20, 30})
	}
	dst := make([]float32, 3)
	n := Norm{BGR: true, Mean: [3]float32{1, 2, 3}, InvStd: [3]float32{1, 0.5, 2}}
	Warp(dst, 1, 1, im, Affine{A: 1, D: 1}, &n)
	if dst[0] != 29 || dst[1] != 9 || dst[2] != 14 {
		t.Errorf("got %v, want [29 9 14]", dst)
	}
	mustPanic(t, "another size", func() { Warp(dst, 2, 2, im, Affine{A: 1, D: 1}, &n) })
}

func TestWarpReadsEveryFormat(t *testing.T) {
	for _, im := range everyFormat(t, 31, 17) {
		rgb := asRGB(im)
		m := Affine{A: 0.9, B: 0.2, TX: -3, C: -0.2, D: 0.9, TY: 4}
		got, want := make([]float32, 3*20*20), make([]float32, 3*20*20)
		Warp(got, 20, 20, im, m, &plain)
		Warp(want, 20, 20, rgb, m, &plain)
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%v (full range %v): value %d is %v, from RGB24 %v", im.Format, im.FullRange, i, got[i], want[i])
			}
		}
	}
}

func BenchmarkWarp112(b *testing.B) {
	im := gradient(640, 480)
	dst := make([]float32, 3*112*112)
	b.ReportAllocs()
	for b.Loop() {
		Warp(dst, 112, 112, im, Affine{A: 1.4, B: 0.2, TX: 100, C: -0.2, D: 1.4, TY: 80}, &plain)
	}
}
