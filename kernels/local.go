package kernels

import "math"

// LocalNorm is the work area of a local normalisation: column sums. Its zero value is ready; it grows to the widest
// picture seen.
type LocalNorm struct {
	sum, squares []uint32 // per column, over the rows of the window
}

// Normalize writes (grey - mean) / (deviation + floor), clipped to ±clip, for every pixel of a grey picture of w x h
// pixels into dst, whose rows are stride values apart. Mean and deviation are those of the window x window pixels about
// the pixel (window is odd and at most 255), cut at the edges of the picture.
func (n *LocalNorm) Normalize(dst []float32, stride int, grey []byte, w, h, window int, floor, clip float32) {
	if window%2 == 0 || window > 255 || w > stride || len(grey) < w*h || len(dst) < (h-1)*stride+w {
		panic("kernels: local normalisation of a picture that is smaller than promised, or with an even window")
	}
	if len(n.sum) < w {
		n.sum, n.squares = make([]uint32, w), make([]uint32, w)
	}
	sum, squares := n.sum[:w], n.squares[:w]
	clear(sum)
	clear(squares)
	half := window / 2
	for y := range min(half, h) {
		addRow(sum, squares, grey[y*w:][:w])
	}
	for y := range h {
		if y+half < h {
			addRow(sum, squares, grey[(y+half)*w:][:w])
		}
		if y-half-1 >= 0 {
			subtractRow(sum, squares, grey[(y-half-1)*w:][:w])
		}
		rows := min(h-1, y+half) - max(0, y-half) + 1
		normalizeRow(dst[y*stride:][:w], grey[y*w:][:w], sum, squares, half, rows, floor, clip)
	}
}

func addRow(sum, squares []uint32, row []byte) {
	for x, v := range row {
		sum[x] += uint32(v)
		squares[x] += uint32(v) * uint32(v)
	}
}

func subtractRow(sum, squares []uint32, row []byte) {
	for x, v := range row {
		sum[x] -= uint32(v)
		squares[x] -= uint32(v) * uint32(v)
	}
}

func normalizeRow(dst []float32, row []byte, sum, squares []uint32, half, rows int, floor, clip float32) {
	w := len(row)
	var s, q uint32 // 255*255 pixels of 255*255 fit
	for x := range min(half, w) {
		s += sum[x]
		q += squares[x]
	}
	for x := range w {
		if x+half < w {
			s += sum[x+half]
			q += squares[x+half]
		}
		if x-half-1 >= 0 {
			s -= sum[x-half-1]
			q -= squares[x-half-1]
		}
		inv := 1 / float64(rows*(min(w-1, x+half)-max(0, x-half)+1))
		mean := float64(s) * inv
		dev := float32(math.Sqrt(max(0, float64(q)*inv-mean*mean)))
		dst[x] = max(-clip, min(clip, (float32(row[x])-float32(mean))/(dev+floor)))
	}
}

// Gray writes the luminance of a picture of any format into dst, scaled to w x h pixels by bilinear interpolation between
// pixel centres. Colour is weighted as ITU-R BT.601 says (299, 587, 114 thousandths).
func Gray(dst []byte, w, h int, im *Image) {
	if len(dst) < w*h {
		panic("kernels: grey picture smaller than promised")
	}
	sx, sy := float32(im.Width)/float32(w), float32(im.Height)/float32(h)
	for y := range h {
		fy := max(0, (float32(y)+0.5)*sy-0.5)
		y0 := min(int(fy), im.Height-1)
		y1 := min(y0+1, im.Height-1)
		ty := fy - float32(y0)
		for x := range w {
			fx := max(0, (float32(x)+0.5)*sx-0.5)
			x0 := min(int(fx), im.Width-1)
			x1 := min(x0+1, im.Width-1)
			tx := fx - float32(x0)
			a := im.luma(x0, y0) + (im.luma(x1, y0)-im.luma(x0, y0))*tx
			b := im.luma(x0, y1) + (im.luma(x1, y1)-im.luma(x0, y1))*tx
			dst[y*w+x] = uint8(a + (b-a)*ty + 0.5)
		}
	}
}

// luma is the luminance of one pixel, 0 to 255.
func (im *Image) luma(x, y int) float32 {
	p := &im.Planes[0]
	switch im.Format {
	case RGB24:
		d := p.Data[y*p.StrideBytes+3*x:]
		return 0.299*float32(d[0]) + 0.587*float32(d[1]) + 0.114*float32(d[2])
	case YUYV:
		return im.fullRange(p.Data[y*p.StrideBytes+2*x])
	case NV12:
		return im.fullRange(p.Data[y*p.StrideBytes+x])
	}
	return float32(p.Data[y*p.StrideBytes+x])
}

// fullRange stretches video levels, 16 to 235, to 0 to 255.
func (im *Image) fullRange(v byte) float32 {
	if im.FullRange {
		return float32(v)
	}
	return max(0, min(255, (float32(v)-16)*(255.0/219)))
}
