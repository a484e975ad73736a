package kernels

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// slowNormalize is LocalNorm.Normalize by its definition.
func slowNormalize(grey []byte, w, h, window int, floor, clip float64) []float64 {
	out := make([]float64, w*h)
	half := window / 2
	for y := range h {
		for x := range w {
			var n, sum, squares float64
			for v := max(0, y-half); v <= min(h-1, y+half); v++ {
				for u := max(0, x-half); u <= min(w-1, x+half); u++ {
					g := float64(grey[v*w+u])
					n, sum, squares = n+1, sum+g, squares+g*g
				}
			}
			mean := sum / n
			dev := math.Sqrt(max(0, squares/n-mean*mean))
			out[y*w+x] = max(-clip, min(clip, (float64(grey[y*w+x])-mean)/(dev+floor)))
		}
	}
	return out
}

func TestLocalNormEqualsItsDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var n LocalNorm
	for _, size := range [][3]int{{1, 1, 3}, {7, 3, 5}, {3, 7, 33}, {40, 50, 33}, {64, 20, 9}, {33, 33, 33}} {
		w, h, window := size[0], size[1], size[2]
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			grey := make([]byte, w*h)
			for i := range grey {
				grey[i] = byte(r.Uint32())
			}
			stride := w + 5
			got := make([]float32, stride*h)
			for i := range got {
				got[i] = 9
			}
			n.Normalize(got, stride, grey, w, h, window, 6, 3)
			want := slowNormalize(grey, w, h, window, 6, 3)
			for y := range h {
				for x := range stride {
					g := float64(got[y*stride+x])
					if x >= w {
						if g != 9 {
							t.Fatalf("wrote behind row %d", y)
						}
						continue
					}
					if math.Abs(g-want[y*w+x]) > 1e-4 {
						t.Fatalf("(%d,%d): %v, want %v", x, y, g, want[y*w+x])
					}
				}
			}
		})
	}
}

func TestLocalNormOfTheBrightestPictureDoesNotOverflow(t *testing.T) {
	const side = 300
	grey := make([]byte, side*side)
	for i := range grey {
		grey[i] = 255
	}
	got := make([]float32, side*side)
	var n LocalNorm
	n.Normalize(got, side, grey, side, side, 255, 6, 3)
	for i, v := range got {
		if v != 0 {
			t.Fatalf("pixel %d of an even picture is %v", i, v)
		}
	}
}

func TestGrayScalesAndConverts(t *testing.T) {
	// A ramp keeps its values where the size stays, and its ends where it changes.
	const w, h = 16, 8
	data := make([]byte, w*h)
	for i := range data {
		data[i] = byte(i % w * 10)
	}
	im := Image{Format: Gray8, Width: w, Height: h}
	im.Planes[0] = Plane{Data: data, StrideBytes: w}
	same := make([]byte, w*h)
	Gray(same, w, h, &im)
	if string(same) != string(data) {
		t.Error("the same size changes the picture")
	}
	double := make([]byte, 4*w*h)
	Gray(double, 2*w, 2*h, &im)
	for x := range 2 * w {
		want := max(0, min(150, (float64(x)+0.5)/2*10-5))
		if got := float64(double[x]); math.Abs(got-want) > 0.51 {
			t.Errorf("column %d of the doubled ramp is %v, want %v", x, got, want)
		}
	}
	rgb := Image{Format: RGB24, Width: 2, Height: 1}
	rgb.Planes[0] = Plane{Data: []byte{255, 0, 0, 0, 0, 255}, StrideBytes: 6}
	two := make([]byte, 2)
	Gray(two, 2, 1, &rgb)
	if two[0] != 76 || two[1] != 29 {
		t.Errorf("red and blue are %v, want 76 and 29", two)
	}
	video := Image{Format: NV12, Width: 2, Height: 1}
	video.Planes[0] = Plane{Data: []byte{16, 235}, StrideBytes: 2}
	Gray(two, 2, 1, &video)
	if two[0] != 0 || two[1] != 255 {
		t.Errorf("video black and white are %v", two)
	}
}
