package kernels

import (
	"math"
	"testing"
)

func scaled(im *Image, w, h int, n *Norm) []float32 {
	dst := make([]float32, 3*w*h)
	for i := range dst {
		dst[i] = float32(math.NaN()) // every value must be written
	}
	NewLetterbox(im.Width, im.Height, w, h).Into(dst, im, n)
	return dst
}

func TestLetterboxKeepsAPictureOfTheSameSize(t *testing.T) {
	im := gradient(24, 16)
	got := scaled(im, 24, 16, &plain)
	for i := range 24 * 16 {
		x, y := i%24, i/24
		if got[i] != float32(x) || got[384+i] != float32(y) || got[768+i] != float32(x+y) {
			t.Fatalf("pixel %d,%d: %v,%v,%v", x, y, got[i], got[384+i], got[768+i])
		}
	}
}

func TestLetterboxHalvesByTheMeanOfFour(t *testing.T) {
	for _, size := range [][2]int{{2, 2}, {16, 12}, {64, 2}} {
		w, h := size[0], size[1]
		im := &Image{Format: RGB24, Width: w, Height: h, Planes: [2]Plane{{noise(3*w*h, 11), 3 * w}}}
		got := scaled(im, w/2, h/2, &plain)
		for i := range len(got) {
			c, x, y := i/(w*h/4), i%(w/2), i%(w*h/4)/(w/2)
			var want float32
			for k := range 4 {
				want += float32(im.Planes[0].Data[3*((2*y+k/2)*w+2*x+k%2)+c]) / 4
			}
			if !near(got[i], want, 1e-3) {
				t.Fatalf("%v: channel %d pixel %d,%d is %v, want %v", size, c, x, y, got[i], want)
			}
		}
	}
}

// TestLetterboxKeepsTheMean: shrinking by any factor weighs every source pixel the same.
func TestLetterboxKeepsTheMean(t *testing.T) {
	for _, c := range []struct{ w, h, dw, dh int }{
		{100, 100, 33, 33}, {101, 67, 32, 32}, {640, 480, 320, 320}, {333, 1, 10, 10}, {1, 333, 10, 10}, {7, 7, 5, 5},
	} {
		im := &Image{Format: Gray8, Width: c.w, Height: c.h, Planes: [2]Plane{{noise(c.w*c.h, 3), c.w}}}
		l := NewLetterbox(c.w, c.h, c.dw, c.dh)
		got := scaled(im, c.dw, c.dh, &plain)
		var want, sum float64
		for _, v := range im.Planes[0].Data {
			want += float64(v) / float64(c.w*c.h)
		}
		for y := range l.outH {
			for x := range l.outW {
				sum += float64(got[y*c.dw+x]) / float64(l.outW*l.outH)
			}
		}
		if math.Abs(sum-want) > 6 { // the last row and column may stand for a part of a pixel
			t.Errorf("%+v: mean %v, want %v", c, sum, want)
		}
	}
}

func TestLetterboxEnlargesBilinearly(t *testing.T) {
	im := &Image{Format: Gray8, Width: 2, Height: 1, Planes: [2]Plane{{[]byte{0, 100}, 2}}}
	got := scaled(im, 8, 4, &plain)
	want := []float32{0, 0, 12.5, 37.5, 62.5, 87.5, 100, 100} // half-pixel centres, edges repeated
	for y := range 4 {
		for x, v := range want {
			if !near(got[8*y+x], v, 1e-3) {
				t.Fatalf("pixel %d,%d is %v, want %v", x, y, got[8*y+x], v)
			}
		}
	}
}

func TestLetterboxPads(t *testing.T) {
	n := Norm{BGR: true, Mean: [3]float32{10, 20, 30}, InvStd: [3]float32{1, 2, 0.5}}
	for _, c := range []struct {
		name         string
		w, h, dw, dh int
		outW, outH   int
	}{
		{"wide", 40, 20, 16, 16, 16, 8},
		{"tall", 20, 40, 16, 16, 8, 16},
		{"a line", 1000, 1, 16, 16, 16, 1},
		{"a column", 1, 1000, 16, 16, 1, 16},
		{"one pixel", 1, 1, 16, 16, 16, 16},
		{"rounded", 17, 9, 16, 16, 16, 8},
	} {
		im := flat(c.w, c.h, 50)
		got := scaled(im, c.dw, c.dh, &n)
		for ch := range 3 {
			in, out := (50-n.Mean[ch])*n.InvStd[ch], -n.Mean[ch]*n.InvStd[ch]
			for y := range c.dh {
				for x := range c.dw {
					want := out
					if x < c.outW && y < c.outH {
						want = in
					}
					if v := got[(ch*c.dh+y)*c.dw+x]; !near(v, want, 1e-3) {
						t.Fatalf("%s: channel %d pixel %d,%d is %v, want %v", c.name, ch, x, y, v, want)
					}
				}
			}
		}
	}
}

func TestLetterboxReadsEveryFormat(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {3, 5}, {31, 17}, {64, 48}} {
		for _, im := range everyFormat(t, size[0], size[1]) {
			for _, d := range [][2]int{{32, 32}, {8, 20}} {
				got, want := scaled(im, d[0], d[1], &plain), scaled(asRGB(im), d[0], d[1], &plain)
				for i := range got {
					if got[i] != want[i] {
						t.Fatalf("%v %v to %v: value %d is %v, from RGB24 %v", im.Format, size, d, i, got[i], want[i])
					}
				}
			}
		}
	}
}

func TestLetterboxOrder(t *testing.T) {
	im := flat(2, 2, 0)
	for i := range 4 {
		copy(im.Planes[0].Data[3*i:], []byte{1, 2, 3})
	}
	n := plain
	n.BGR = true
	if got := scaled(im, 1, 1, &n); got[0] != 3 || got[1] != 2 || got[2] != 1 {
		t.Errorf("BGR: %v", got)
	}
}

func TestLetterboxRefusesAnotherSize(t *testing.T) {
	l := NewLetterbox(10, 10, 5, 5)
	mustPanic(t, "picture", func() { l.Into(make([]float32, 75), flat(10, 11, 0), &plain) })
	mustPanic(t, "tensor", func() { l.Into(make([]float32, 74), flat(10, 10, 0), &plain) })
	if x, y := l.Scale(); !l.Fits(10, 10) || l.Fits(11, 10) || x != 0.5 || y != 0.5 {
		t.Error("Fits or Scale is wrong")
	}
}

func TestKernelsAllocateNothing(t *testing.T) {
	dst := make([]float32, 3*32*32)
	q := make([]int8, 128)
	v := make([]float32, 128)
	v[3] = 1
	scores := make([]int32, 4)
	rows := make([]int8, 512)
	for _, im := range everyFormat(t, 50, 40) {
		l := NewLetterbox(im.Width, im.Height, 32, 32)
		if n := testing.AllocsPerRun(5, func() { l.Into(dst, im, &plain) }); n != 0 {
			t.Errorf("Letterbox.Into of %v: %v allocations", im.Format, n)
		}
		if n := testing.AllocsPerRun(5, func() { Warp(dst, 32, 32, im, Affine{A: 2, D: 2}, &plain) }); n != 0 {
			t.Errorf("Warp of %v: %v allocations", im.Format, n)
		}
		for _, area := range []bool{false, true} {
			if n := testing.AllocsPerRun(5, func() { CropResize(dst, 32, 32, im, Rect{-9, 3, 90, 60}, area, &plain) }); n != 0 {
				t.Errorf("CropResize of %v: %v allocations", im.Format, n)
			}
		}
	}
	if n := testing.AllocsPerRun(5, func() { DotRows(scores, rows, 128, q) }); n != 0 {
		t.Errorf("DotRows: %v allocations", n)
	}
	if n := testing.AllocsPerRun(5, func() { QuantizeUnit(q, v) }); n != 0 {
		t.Errorf("QuantizeUnit: %v allocations", n)
	}
}

func BenchmarkLetterbox320(b *testing.B) {
	im := gradient(640, 480)
	l := NewLetterbox(640, 480, 320, 320)
	dst := make([]float32, 3*320*320)
	b.ReportAllocs()
	for b.Loop() {
		l.Into(dst, im, &plain)
	}
}

func TestStretchCoversTheTensor(t *testing.T) {
	im := flat(40, 10, 200)
	l := NewStretch(40, 10, 20, 20)
	if x, y := l.Scale(); x != 0.5 || y != 2 {
		t.Errorf("scales %v and %v, want 0.5 and 2", x, y)
	}
	dst := make([]float32, 3*20*20)
	l.Into(dst, im, &plain)
	for i, v := range dst {
		if !near(v, 200, 1e-3) {
			t.Fatalf("value %d is %v: a part of the tensor is not the picture", i, v)
		}
	}
}
