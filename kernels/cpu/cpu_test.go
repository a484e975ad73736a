package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"vigil/kernels"
)

// backends are the kernels that this processor can run.
func backends() []*kernelSet { return kernelSets() }

// onEach runs a test on every backend.
func onEach(t *testing.T, f func(t *testing.T)) {
	keep := best
	defer func() { best = keep }()
	for _, b := range backends() {
		best = b
		t.Run(Name(), f)
	}
}

var formats = []kernels.Format{kernels.Gray8, kernels.RGB24, kernels.NV12, kernels.YUYV}

// noise is a picture of random bytes with a stride that is longer than its rows.
func noise(r *rand.Rand, format kernels.Format, w, h int, full bool) *kernels.Image {
	even := (w + 1) &^ 1
	im := &kernels.Image{Format: format, Width: w, Height: h, FullRange: full}
	plane := func(i, row, rows int) {
		stride := row + r.IntN(9)
		data := make([]byte, stride*(rows-1)+row) // the last row ends with the memory
		for k := range data {
			data[k] = byte(r.Uint32())
		}
		im.Planes[i] = kernels.Plane{Data: data, StrideBytes: stride}
	}
	switch format {
	case kernels.Gray8:
		plane(0, w, h)
	case kernels.RGB24:
		plane(0, 3*w, h)
	case kernels.NV12:
		plane(0, w, h)
		plane(1, even, (h+1)/2)
	case kernels.YUYV:
		plane(0, 2*even, h)
	}
	if err := im.Check(); err != nil {
		panic(err)
	}
	return im
}

var norms = []kernels.Norm{
	{InvStd: [3]float32{1, 1, 1}},
	{BGR: true, Mean: [3]float32{103.53, 116.28, 123.675}, InvStd: [3]float32{1 / 57.375, 1 / 57.12, 1 / 58.395}},
	{Mean: [3]float32{127.5, 120, 110}, InvStd: [3]float32{1 / 127.5, 1. / 128, 1. / 64}},
}

// differ says how far two tensors lie apart, in grey levels.
func differ(got, want []float32, plane int, n *kernels.Norm) (worst float64, at int) {
	for i := range want {
		d := math.Abs(float64(got[i]-want[i]) / float64(n.InvStd[i/plane]))
		if !(d <= worst) { // a number that is none counts
			worst, at = d, i
		}
	}
	return worst, at
}

const tolerance = 0.01 // grey levels

func unset(n int) []float32 {
	dst := make([]float32, n)
	for i := range dst {
		dst[i] = float32(math.NaN()) // every value must be written
	}
	return dst
}

func TestLetterboxEqualsTheReference(t *testing.T) {
	type size struct{ w, h, dw, dh int }
	sizes := []size{{250, 250, 320, 320}, {640, 480, 320, 320}, {640, 480, 640, 640}, {1920, 1080, 320, 320}, {100, 300, 64, 48}, {64, 2, 320, 320}, {1000, 9, 8, 8}, {5000, 100, 64, 64}}
	for w := 1; w <= 20; w++ { // every length of row, on both sides
		sizes = append(sizes, size{w, 21 - w, 16, 16}, size{16, 16, w, 21 - w}, size{w, w, w, w})
	}
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for i, s := range sizes {
			for _, format := range formats {
				n := &norms[i%len(norms)]
				im := noise(r, format, s.w, s.h, i%2 == 0)
				for stretch, make := range map[bool]func(a, b, c, d int) (*Letterbox, *kernels.Letterbox){
					false: func(a, b, c, d int) (*Letterbox, *kernels.Letterbox) {
						return NewLetterbox(a, b, c, d), kernels.NewLetterbox(a, b, c, d)
					},
					true: func(a, b, c, d int) (*Letterbox, *kernels.Letterbox) {
						return NewStretch(a, b, c, d), kernels.NewStretch(a, b, c, d)
					},
				} {
					ours, ref := make(s.w, s.h, s.dw, s.dh)
					got, want := unset(3*s.dw*s.dh), unset(3*s.dw*s.dh)
					ours.Into(got, im, n)
					ours.Into(got, im, n) // the work area is used again
					ref.Into(want, im, n)
					if d, at := differ(got, want, s.dw*s.dh, n); d > tolerance {
						t.Errorf("%v %+v stretch %v: value %d is %v, want %v", format, s, stretch, at, got[at], want[at])
					}
				}
			}
		}
	})
}

// maps are rotations, scales and shifts, some of which leave the picture.
func maps(r *rand.Rand, w, h int) kernels.Affine {
	scale, angle := 0.1+4*r.Float64()*r.Float64(), 2*math.Pi*r.Float64()
	a, b := float32(scale*math.Cos(angle)), float32(scale*math.Sin(angle))
	return kernels.Affine{A: a, B: -b, C: b, D: a, TX: float32(w) * (2*r.Float32() - 0.5), TY: float32(h) * (2*r.Float32() - 0.5)}
}

func TestWarpEqualsTheReference(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		var w Warper
		for i := range 400 {
			sw, sh, dw, dh := 1+r.IntN(90), 1+r.IntN(90), 1+r.IntN(24), 1+r.IntN(24)
			im, n, m := noise(r, formats[i%4], sw, sh, i%8 < 4), &norms[i%len(norms)], maps(r, sw, sh)
			if i%5 == 0 {
				m = kernels.Affine{A: 1, D: 1, TX: float32(r.IntN(5) - 2), TY: float32(r.IntN(5) - 2)} // pixel upon pixel
			}
			got, want := unset(3*dw*dh), unset(3*dw*dh)
			w.Warp(got, dw, dh, im, m, n)
			kernels.Warp(want, dw, dh, im, m, n)
			// A point is a float32 of up to some hundred pixels, and neighbours differ by up to 255.
			if d, at := differ(got, want, dw*dh, n); d > 0.1 {
				t.Errorf("%d: %v %dx%d to %dx%d by %+v: value %d is %v, want %v", i, im.Format, sw, sh, dw, dh, m, at, got[at], want[at])
			}
		}
	})
}

// A map without sense must not read outside the picture.
func TestWarpOfMapsWithoutSense(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		var w Warper
		inf, nan := float32(math.Inf(1)), float32(math.NaN())
		for _, m := range []kernels.Affine{{}, {A: nan}, {A: inf, D: -inf}, {TX: nan, TY: inf}, {A: 1e30, D: 1e30}, {A: 1e-30, D: 1e-30, TX: 3e9, TY: -3e9}, {TX: 1e9, TY: 1e9, A: 1, D: 1}} {
			for _, f := range formats {
				w.Warp(make([]float32, 3*8*8), 8, 8, noise(r, f, 9, 7, true), m, &norms[0])
			}
		}
	})
}

func TestConversionsAreTheSameBitForBit(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 8))
		var warper Warper
		for i := range 200 {
			w, h := 1+r.IntN(150), 1+r.IntN(9)
			im := noise(r, formats[i%4], w, h, i%8 < 4)
			x, y := r.IntN(w), r.IntN(h)
			cw, ch := 1+r.IntN(w-x), 1+r.IntN(h-y)
			got := warper.convert(im, x, y, cw, ch)
			line := make([]byte, 3*w)
			for k := range ch {
				row := im.Row(line, y+k)[3*x:]
				for j := range 3 * cw {
					if got[3*cw*k+j] != row[j] {
						t.Fatalf("%v %dx%d: byte %d of row %d is %d, want %d", im.Format, w, h, j, k, got[3*cw*k+j], row[j])
					}
				}
			}
		}
		warper.Wipe()
		for _, b := range warper.rgb[:cap(warper.rgb)] {
			if b != 0 {
				t.Fatal("something is left of the picture")
			}
		}
	})
}

func TestScoresAreExact(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 9))
		for size := range 140 { // every length
			rows, stride := r.IntN(20), size+r.IntN(3)
			data, probe := make([]int8, max(0, (rows-1)*stride+size)), make([]int8, size)
			for _, s := range [][]int8{data, probe} {
				for i := range s {
					s[i] = int8(r.Uint32())
				}
			}
			if size%7 == 0 { // the largest sums
				for i := range probe {
					probe[i] = -128
				}
			}
			got, want := make([]int32, rows), make([]int32, rows)
			DotRows(got, data, stride, probe)
			kernels.DotRows(want, data, stride, probe)
			if !slices.Equal(got, want) {
				t.Fatalf("%d rows of %d, %d apart: %v, want %v", rows, size, stride, got, want)
			}
		}
	})
}

func TestMirror(t *testing.T) {
	onEach(t, func(t *testing.T) {
		for w := range 40 {
			in := make([]float32, 3*w)
			for i := range in {
				in[i] = float32(i)
			}
			Mirror(in, 3, w)
			for i, v := range in {
				if y, x := i/max(w, 1), i%max(w, 1); v != float32(y*w+w-1-x) {
					t.Fatalf("width %d: value %d is %v", w, i, v)
				}
			}
		}
	})
}

func TestWrongSizesPanic(t *testing.T) {
	im := noise(rand.New(rand.NewPCG(9, 9)), kernels.RGB24, 8, 8, false)
	var w Warper
	for name, f := range map[string]func(){
		"letterbox of another picture": func() { NewLetterbox(9, 8, 4, 4).Into(make([]float32, 48), im, &norms[0]) },
		"letterbox into another size":  func() { NewLetterbox(8, 8, 4, 4).Into(make([]float32, 47), im, &norms[0]) },
		"warp into another size":       func() { w.Warp(make([]float32, 47), 4, 4, im, kernels.Affine{A: 1, D: 1}, &norms[0]) },
		"rows that are too few":        func() { DotRows(make([]int32, 3), make([]int8, 23), 8, make([]int8, 8)) },
		"mirror of another size":       func() { Mirror(make([]float32, 47), 4, 12) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: nothing happens", name)
				}
			}()
			f()
		}()
	}
}

func TestNothingIsAllocatedInSteadyState(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	im := noise(r, kernels.NV12, 64, 48, true)
	l, dst := NewLetterbox(64, 48, 32, 32), make([]float32, 3*32*32)
	var w Warper
	m := kernels.Affine{A: 1.2, D: 1.2, TX: 3, TY: 2}
	if n := testing.AllocsPerRun(100, func() {
		l.Into(dst, im, &norms[1])
		w.Warp(dst, 32, 32, im, m, &norms[1])
		Mirror(dst, 96, 32)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLetterbox(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		f    kernels.Format
		w, h int
	}{{kernels.RGB24, 250, 250}, {kernels.RGB24, 640, 480}, {kernels.NV12, 640, 480}, {kernels.YUYV, 1920, 1080}} {
		im, dst := noise(r, c.f, c.w, c.h, true), make([]float32, 3*320*320)
		for name, into := range map[string]func([]float32, *kernels.Image, *kernels.Norm){
			"reference": kernels.NewLetterbox(c.w, c.h, 320, 320).Into, "cpu": NewLetterbox(c.w, c.h, 320, 320).Into,
		} {
			b.Run(fmt.Sprintf("%v-%dx%d/%s", c.f, c.w, c.h, name), func(b *testing.B) {
				for b.Loop() {
					into(dst, im, &norms[0])
				}
			})
		}
	}
}

func BenchmarkWarp(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	dst := make([]float32, 3*112*112)
	for _, f := range []kernels.Format{kernels.RGB24, kernels.NV12} {
		im := noise(r, f, 640, 480, true)
		for _, scale := range []float32{1, 3} {
			m := kernels.Affine{A: scale, B: 0.1, C: -0.1, D: scale, TX: 30, TY: 40}
			var w Warper
			for name, warp := range map[string]func([]float32, int, int, *kernels.Image, kernels.Affine, *kernels.Norm){"reference": kernels.Warp, "cpu": w.Warp} {
				b.Run(fmt.Sprintf("%v-%vx/%s", f, scale, name), func(b *testing.B) {
					for b.Loop() {
						warp(dst, 112, 112, im, m, &norms[1])
					}
				})
			}
		}
	}
}

func BenchmarkDotRows(b *testing.B) {
	rows, probe, dst := make([]int8, 10000*512), make([]int8, 512), make([]int32, 10000)
	for name, dot := range map[string]func([]int32, []int8, int, []int8){"reference": kernels.DotRows, "cpu": DotRows} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(rows)))
			for b.Loop() {
				dot(dst, rows, 512, probe)
			}
		})
	}
}
