package kernels

import (
	"math"
	"testing"
)

// column is a grey picture whose pixels are f(x, y).
func column(w, h int, f func(x, y int) byte) *Image {
	pix := make([]byte, w*h)
	for i := range pix {
		pix[i] = f(i%w, i/w)
	}
	return &Image{Format: Gray8, Width: w, Height: h, Planes: [2]Plane{{Data: pix, StrideBytes: w}}}
}

// TestCropResizeByHand: rows of pixels whose result is worked out by hand; values as OpenCV's resize gives.
func TestCropResizeByHand(t *testing.T) {
	ramp := column(8, 4, func(x, _ int) byte { return byte(10 * x) })
	for _, c := range []struct {
		name string
		r    Rect
		w    int
		area bool
		want []float32 // first row
	}{
		{"as it is", Rect{0, 0, 8, 4}, 8, false, []float32{0, 10, 20, 30, 40, 50, 60, 70}},
		{"a part", Rect{2, 1, 4, 2}, 4, false, []float32{20, 30, 40, 50}},
		{"half, two pixels meet", Rect{0, 0, 8, 4}, 4, false, []float32{5, 25, 45, 65}},
		{"a quarter, bilinear skips", Rect{0, 0, 8, 4}, 2, false, []float32{15, 55}},
		{"a quarter, area averages", Rect{0, 0, 8, 4}, 2, true, []float32{15, 55}},
		{"area of one and a half", Rect{0, 0, 6, 4}, 4, true, []float32{10 / 3.0, 50.0 / 3, 100.0 / 3, 140.0 / 3}},
		{"double, edges stay", Rect{0, 0, 2, 1}, 4, false, []float32{0, 2.5, 7.5, 10}},
		{"double, area too", Rect{0, 0, 2, 1}, 4, true, []float32{0, 2.5, 7.5, 10}},
		{"reflected on the left", Rect{-3, 0, 6, 4}, 6, false, []float32{30, 20, 10, 0, 10, 20}},
		{"reflected on the right", Rect{5, 0, 6, 4}, 6, false, []float32{50, 60, 70, 60, 50, 40}},
		{"far away", Rect{-14, 0, 4, 4}, 4, true, []float32{0, 10, 20, 30}},
	} {
		dst := make([]float32, 3*c.w)
		CropResize(dst, c.w, 1, ramp, c.r, c.area, &plain)
		for i, want := range c.want {
			for ch := range 3 {
				if got := dst[ch*c.w+i]; !near(got, want, 1e-3) {
					t.Errorf("%s: channel %d %v, want %v", c.name, ch, dst[ch*c.w:][:c.w], c.want)
					break
				}
			}
		}
	}
}

func TestCropResizeReflectsDown(t *testing.T) {
	im := column(3, 5, func(_, y int) byte { return byte(10 * y) })
	dst := make([]float32, 3*9)
	CropResize(dst, 1, 9, im, Rect{0, -2, 3, 9}, true, &plain)
	for y, want := range []float32{20, 10, 0, 10, 20, 30, 40, 30, 20} {
		if !near(dst[y], want, 1e-3) {
			t.Errorf("row %d is %v, want %v", y, dst[y], want)
		}
	}
}

func TestCropResizeNormalisesInTheOrderOfTheTensor(t *testing.T) {
	im := &Image{Format: RGB24, Width: 1, Height: 1, Planes: [2]Plane{{Data: []byte{10, 20, 30}, StrideBytes: 3}}}
	n := Norm{BGR: true, Mean: [3]float32{1, 2, 3}, InvStd: [3]float32{1, 0.5, 0.1}}
	dst := make([]float32, 3)
	CropResize(dst, 1, 1, im, Rect{0, 0, 1, 1}, false, &n)
	for i, want := range []float32{29, 9, 0.7} {
		if !near(dst[i], want, 1e-5) {
			t.Errorf("channel %d is %v, want %v", i, dst[i], want)
		}
	}
}

// TestCropResizeAnywhere: no rectangle reads outside the picture, and all values are those of pixels or their means.
func TestCropResizeAnywhere(t *testing.T) {
	for _, im := range everyFormat(t, 23, 17) {
		dst := make([]float32, 3*7*5)
		for _, r := range []Rect{
			{0, 0, 23, 17}, {-1000, -1000, 3000, 3000}, {1 << 40, -1 << 40, 9, 9}, {math.MinInt, math.MinInt, 5, 5}, {22, 16, 1, 1},
			{0, 0, 1 << 20, 1 << 20}, {5, 5, 0, 9}, {5, 5, -3, 9}, {0, 0, 1<<20 + 1, 4},
		} {
			for _, area := range []bool{false, true} {
				CropResize(dst, 7, 5, im, r, area, &plain)
				for _, v := range dst {
					if !(v >= 0 && v <= 255.01) {
						t.Fatalf("%v of %v: value %v", r, im.Format, v)
					}
				}
			}
		}
		CropResize(dst, 7, 5, im, Rect{5, 5, 0, 9}, true, &plain)
		if dst[0] != 0 || dst[len(dst)-1] != 0 {
			t.Error("an empty rectangle is not black")
		}
	}
	mustPanic(t, "tensor of another size", func() { CropResize(make([]float32, 5), 1, 2, flat(3, 3, 1), Rect{0, 0, 1, 1}, false, &plain) })
}

// TestAreaKeepsTheMean: shrinking by any factor keeps the mean of a picture, up to what the outermost samples weigh.
func TestAreaKeepsTheMean(t *testing.T) {
	im := column(120, 90, func(x, y int) byte { return byte((x*37 + y*59) % 200) })
	var mean float64
	for _, v := range im.Planes[0].Data {
		mean += float64(v) / float64(len(im.Planes[0].Data))
	}
	for _, w := range []int{120, 77, 40, 31, 13} {
		dst := make([]float32, 3*w*w)
		CropResize(dst, w, w, im, Rect{0, 0, 120, 90}, true, &plain)
		var got float64
		for _, v := range dst[:w*w] {
			got += float64(v) / float64(w*w)
		}
		if math.Abs(got-mean) > 1 {
			t.Errorf("to %d: mean %.2f, want %.2f", w, got, mean)
		}
	}
}

func BenchmarkCropResize80(b *testing.B) {
	im := gradient(640, 480)
	dst := make([]float32, 3*80*80)
	b.ReportAllocs()
	for b.Loop() {
		CropResize(dst, 80, 80, im, Rect{100, 50, 400, 400}, false, &plain)
	}
}
