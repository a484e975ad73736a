package kernels

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// noise fills n bytes.
func noise(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

// everyFormat gives one random picture per layout and range, with strides longer than the rows.
func everyFormat(t *testing.T, w, h int) []*Image {
	t.Helper()
	even := (w + 1) &^ 1
	var list []*Image
	for _, full := range []bool{false, true} {
		list = append(list,
			&Image{Format: Gray8, Planes: [2]Plane{{noise((w+3)*h, 1), w + 3}}},
			&Image{Format: RGB24, Planes: [2]Plane{{noise((3*w+5)*h, 2), 3*w + 5}}},
			&Image{Format: YUYV, Planes: [2]Plane{{noise((2*even+4)*h, 3), 2*even + 4}}},
			&Image{Format: NV12, Planes: [2]Plane{{noise((w+1)*h, 4), w + 1}, {noise((even+6)*((h+1)/2), 5), even + 6}}},
		)
		for _, im := range list[len(list)-4:] {
			im.Width, im.Height, im.FullRange = w, h, full
			if err := im.Check(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return list
}

// asRGB converts a picture pixel by pixel; TestYUVLayout and TestColoursOfBT601 pin what a pixel is.
func asRGB(im *Image) *Image {
	out := &Image{Format: RGB24, Width: im.Width, Height: im.Height}
	pix := make([]byte, 3*im.Width*im.Height)
	for y := range im.Height {
		for x := range im.Width {
			r, g, b := im.at(x, y)
			copy(pix[3*(y*im.Width+x):], []byte{r, g, b})
		}
	}
	out.Planes[0] = Plane{Data: pix, StrideBytes: 3 * im.Width}
	return out
}

func TestRowEqualsPixels(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {2, 2}, {3, 1}, {7, 5}, {16, 9}} {
		for _, im := range everyFormat(t, size[0], size[1]) {
			rgb := asRGB(im)
			line := make([]byte, 3*im.Width)
			for y := range im.Height {
				row := im.Row(line, y)
				want := rgb.Row(nil, y)
				if string(row) != string(want) {
					t.Fatalf("%v %v row %d: %v, want %v", im.Format, size, y, row, want)
				}
			}
		}
	}
}

// TestYUVLayout pins which byte is which: a picture whose chroma differs per block.
func TestYUVLayout(t *testing.T) {
	nv := &Image{Format: NV12, Width: 4, Height: 4, FullRange: true, Planes: [2]Plane{
		{Data: []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, StrideBytes: 4},
		{Data: []byte{128, 128, 90, 240, 240, 110, 16, 16}, StrideBytes: 4},
	}}
	yuyv := &Image{Format: YUYV, Width: 4, Height: 1, FullRange: true, Planes: [2]Plane{
		{Data: []byte{10, 90, 20, 240, 30, 128, 40, 128}, StrideBytes: 8},
	}}
	for _, c := range []struct {
		im       *Image
		x, y     int
		y8, u, v uint8
	}{
		{nv, 0, 0, 0, 128, 128}, {nv, 1, 1, 5, 128, 128}, {nv, 2, 1, 6, 90, 240}, {nv, 3, 0, 3, 90, 240},
		{nv, 1, 2, 9, 240, 110}, {nv, 3, 3, 15, 16, 16},
		{yuyv, 0, 0, 10, 90, 240}, {yuyv, 1, 0, 20, 90, 240}, {yuyv, 2, 0, 30, 128, 128}, {yuyv, 3, 0, 40, 128, 128},
	} {
		r, g, b := c.im.at(c.x, c.y)
		wr, wg, wb := c.im.rgb(c.y8, c.u, c.v)
		if r != wr || g != wg || b != wb {
			t.Errorf("%v pixel %d,%d: %d,%d,%d, want that of Y%d U%d V%d: %d,%d,%d", c.im.Format, c.x, c.y, r, g, b, c.y8, c.u, c.v, wr, wg, wb)
		}
	}
}

func TestColoursOfBT601(t *testing.T) {
	for _, c := range []struct {
		name    string
		full    bool
		y, u, v uint8
		r, g, b uint8
	}{
		{"video black", false, 16, 128, 128, 0, 0, 0},
		{"video white", false, 235, 128, 128, 255, 255, 255},
		{"video grey", false, 126, 128, 128, 128, 128, 128},
		{"video red", false, 81, 90, 240, 254, 0, 0}, // 75 % bars would be darker; these are 100 %
		{"video green", false, 145, 54, 34, 0, 255, 1},
		{"video blue", false, 41, 240, 110, 0, 0, 255},
		{"below black", false, 0, 128, 128, 0, 0, 0},
		{"above white", false, 255, 128, 128, 255, 255, 255},
		{"jpeg black", true, 0, 128, 128, 0, 0, 0},
		{"jpeg white", true, 255, 128, 128, 255, 255, 255},
		{"jpeg red", true, 76, 85, 255, 254, 0, 0},
		{"jpeg green", true, 150, 44, 21, 0, 255, 1},
		{"jpeg blue", true, 29, 255, 107, 0, 0, 254},
	} {
		im := Image{FullRange: c.full}
		r, g, b := im.rgb(c.y, c.u, c.v)
		if !near(float32(r), float32(c.r), 1) || !near(float32(g), float32(c.g), 1) || !near(float32(b), float32(c.b), 1) {
			t.Errorf("%s: %d,%d,%d, want %d,%d,%d", c.name, r, g, b, c.r, c.g, c.b)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	good := func() Image {
		return Image{Format: NV12, Width: 5, Height: 3, Planes: [2]Plane{{make([]byte, 15), 5}, {make([]byte, 12), 6}}}
	}
	if im := good(); im.Check() != nil {
		t.Fatal(im.Check())
	}
	for _, c := range []struct {
		name, want string
		change     func(*Image)
	}{
		{"no width", "0x3", func(im *Image) { im.Width = 0 }},
		{"negative height", "5x-3", func(im *Image) { im.Height = -3 }},
		{"no format", "Format(0)", func(im *Image) { im.Format = 0 }},
		{"foreign format", "Format(9)", func(im *Image) { im.Format = 9 }},
		{"short stride", "plane 0", func(im *Image) { im.Planes[0].StrideBytes = 4 }},
		{"negative stride", "plane 0", func(im *Image) { im.Planes[0].StrideBytes = -5 }},
		{"short luma", "plane 0", func(im *Image) { im.Planes[0].Data = make([]byte, 14) }},
		{"odd chroma row", "plane 1", func(im *Image) { im.Planes[1].StrideBytes = 5 }},
		{"short chroma", "plane 1", func(im *Image) { im.Planes[1].Data = make([]byte, 11) }},
		{"no planes", "plane 0", func(im *Image) { im.Planes = [2]Plane{} }},
		{"grey too wide", "plane 0", func(im *Image) { im.Format, im.Width = Gray8, 6 }},
		{"colour short", "plane 0", func(im *Image) { im.Format, im.Planes[0].StrideBytes = RGB24, 15 }},
		{"YUYV odd width", "plane 0", func(im *Image) { im.Format, im.Planes[0].StrideBytes = YUYV, 10 }},
		{"rows overflow", "plane 0", func(im *Image) { im.Height, im.Planes[0].StrideBytes = math.MaxInt/8+2, 8 }},
		{"width overflows", "plane 0", func(im *Image) { im.Format, im.Width = RGB24, math.MaxInt/3+2 }},
		{"width overflows to even", "plane 0", func(im *Image) { im.Format, im.Width = YUYV, math.MaxInt }},
	} {
		im := good()
		c.change(&im)
		if err := im.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.want)
		}
	}
}

// FuzzImage: what Check accepts can be scaled, warped and read to the last pixel.
func FuzzImage(f *testing.F) {
	f.Add(uint8(1), 8, 6, 8, 0, 48, 0)
	f.Add(uint8(2), 7, 5, 23, 0, 4*23+21, 0)
	f.Add(uint8(3), 5, 3, 5, 6, 15, 12)
	f.Add(uint8(4), 5, 3, 12, 0, 36, 0)
	f.Add(uint8(4), 1, 1, 4, 0, 4, 0)
	f.Add(uint8(3), math.MaxInt, 2, 8, 8, 100, 100)
	f.Add(uint8(2), 3, math.MaxInt/9+2, 9, 0, 100, 100)
	f.Fuzz(func(t *testing.T, format uint8, w, h, s0, s1, n0, n1 int) {
		clip := func(n int) []byte { return make([]byte, min(max(n, 0), 4096)) }
		im := Image{Format: Format(format), Width: w, Height: h, Planes: [2]Plane{{clip(n0), s0}, {clip(n1), s1}}}
		if im.Check() != nil {
			return
		}
		dst := make([]float32, 3*8*8)
		NewLetterbox(w, h, 8, 8).Into(dst, &im, &plain)
		im.at(w-1, h-1)
		Warp(dst, 8, 8, &im, Affine{A: float32(w) / 8, D: float32(h) / 8}, &plain)
	})
}
