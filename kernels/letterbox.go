package kernels

import "math"

// Norm says how 8-bit channels become tensor values: (v - Mean) * InvStd per channel, in tensor channel order.
type Norm struct {
	BGR    bool // tensor channel 0 is blue
	Mean   [3]float32
	InvStd [3]float32
}

// Letterbox scales pictures of one size into a planar float tensor of another, keeping the aspect ratio, picture at the
// top left, zero pixels for the rest. Shrinking weighs every source pixel by the area it covers (no aliasing);
// enlarging is bilinear with half-pixel centres. A Letterbox is made once per size, owns its tables and rows, and is
// used by one goroutine at a time.
type Letterbox struct {
	srcW, srcH, dstW, dstH int
	outW, outH             int // the part of the tensor the picture covers
	scaleX, scaleY         float32
	cols, rows             axis
	acc                    []float32 // one vertically filtered row, 3*srcW
	line                   []byte    // one converted source row, 3*srcW
}

// NewLetterbox makes the tables to scale srcW x srcH pixels into a dstW x dstH tensor. All sizes must be positive.
func NewLetterbox(srcW, srcH, dstW, dstH int) *Letterbox {
	s := math.Min(float64(dstW)/float64(srcW), float64(dstH)/float64(srcH))
	outW := min(dstW, max(1, int(math.Round(float64(srcW)*s))))
	outH := min(dstH, max(1, int(math.Round(float64(srcH)*s))))
	return newLetterbox([4]int{srcW, srcH, dstW, dstH}, outW, outH, s, s)
}

// NewStretch is NewLetterbox for models that want the whole tensor covered: the aspect ratio is not kept.
func NewStretch(srcW, srcH, dstW, dstH int) *Letterbox {
	return newLetterbox([4]int{srcW, srcH, dstW, dstH}, dstW, dstH, float64(dstW)/float64(srcW), float64(dstH)/float64(srcH))
}

func newLetterbox(size [4]int, outW, outH int, sx, sy float64) *Letterbox {
	srcW, srcH := size[0], size[1]
	return &Letterbox{
		srcW: srcW, srcH: srcH, dstW: size[2], dstH: size[3], outW: outW, outH: outH,
		scaleX: float32(sx), scaleY: float32(sy),
		cols: newAxis(srcW, outW, 1/sx), rows: newAxis(srcH, outH, 1/sy),
		acc: make([]float32, 3*srcW), line: make([]byte, 3*srcW),
	}
}

// Axis is a table of filter taps for one direction: output i is the sum of the Width inputs from First[i] on, weighted by
// the Width taps from i*Width on.
type Axis struct {
	First []int
	Width int
	Taps  []float32
}

// Tables are what Into works by, for faster backends: across and down, for the part of the tensor that the picture covers,
// and the size of the tensor. They are borrowed and constant.
func (l *Letterbox) Tables() (cols, rows Axis, dstW, dstH int) {
	return Axis{l.cols.first, l.cols.width, l.cols.taps}, Axis{l.rows.first, l.rows.width, l.rows.taps}, l.dstW, l.dstH
}

// Fits reports whether the tables are for pictures of this size.
func (l *Letterbox) Fits(w, h int) bool { return l.srcW == w && l.srcH == h }

// Scale is tensor pixels per source pixel, across and down: source coordinate = tensor coordinate / Scale. The two are
// equal unless the letterbox stretches.
func (l *Letterbox) Scale() (x, y float32) { return l.scaleX, l.scaleY }

// Into writes the scaled picture as planar float32 [3, dstH, dstW] into dst. im must be of the size the tables are for.
func (l *Letterbox) Into(dst []float32, im *Image, n *Norm) {
	if !l.Fits(im.Width, im.Height) || len(dst) != 3*l.dstW*l.dstH {
		panic("kernels: letterbox used for another size")
	}
	plane := l.dstW * l.dstH
	off, pad := channelOrder(n, plane)
	for y := range l.outH {
		l.filterRow(im, y)
		for c := range 3 {
			row := dst[off[c]+y*l.dstW:][:l.dstW]
			ch := off[c] / plane
			l.cols.apply(row[:l.outW], l.acc, c, n.Mean[ch], n.InvStd[ch])
			fill(row[l.outW:], pad[ch])
		}
	}
	for c := range 3 {
		fill(dst[c*plane+l.outH*l.dstW:(c+1)*plane], pad[c])
	}
}

// filterRow computes output row y, still at full source width, into acc.
func (l *Letterbox) filterRow(im *Image, y int) {
	first, taps := l.rows.at(y)
	for i, w := range taps {
		src := im.Row(l.line, first+i)
		acc := l.acc[:len(src)]
		if i == 0 {
			for x, v := range src {
				acc[x] = w * float32(v)
			}
			continue
		}
		for x, v := range src {
			acc[x] += w * float32(v)
		}
	}
}

// channelOrder gives for R, G, B the offset of its plane, and per tensor channel the value of a zero pixel.
func channelOrder(n *Norm, plane int) (off [3]int, pad [3]float32) {
	off = [3]int{0, plane, 2 * plane}
	if n.BGR {
		off = [3]int{2 * plane, plane, 0}
	}
	for c := range 3 {
		pad[c] = -n.Mean[c] * n.InvStd[c]
	}
	return off, pad
}

func fill(dst []float32, v float32) {
	for i := range dst {
		dst[i] = v
	}
}

// axis is a table of filter taps for one direction: output i is the weighted sum of len(taps) inputs from first[i].
type axis struct {
	first []int
	width int
	taps  []float32 // width per output, zero padded
}

func newAxis(src, dst int, step float64) axis {
	radius := math.Max(step, 1)
	a := axis{first: make([]int, dst), width: min(src, int(math.Ceil(radius))+1)}
	a.taps = make([]float32, dst*a.width)
	for i := range dst {
		var lo float64
		var weight func(p int) float64
		if step > 1 { // area: pixel p covers [p, p+1)
			lo = float64(i) * step
			hi := math.Min(lo+step, float64(src))
			weight = func(p int) float64 { return math.Max(0, math.Min(hi, float64(p)+1)-math.Max(lo, float64(p))) }
		} else { // bilinear around the centre, edges repeated
			centre := math.Min(math.Max((float64(i)+0.5)*step-0.5, 0), float64(src-1))
			lo = centre
			weight = func(p int) float64 { return math.Max(0, 1-math.Abs(centre-float64(p))) }
		}
		a.set(i, min(int(lo), src-a.width), weight)
	}
	a.trim()
	return a
}

// trim drops taps that no output needs: halving, for example, looks at two inputs, not at three.
func (a *axis) trim() {
	width := 1
	for i := range a.first {
		for k, w := range a.taps[i*a.width:][:a.width] {
			if w != 0 {
				width = max(width, k+1)
			}
		}
	}
	for i := range a.first {
		copy(a.taps[i*width:][:width], a.taps[i*a.width:][:a.width])
	}
	a.width, a.taps = width, a.taps[:len(a.first)*width]
}

// set stores the normalised taps of output i.
func (a *axis) set(i, first int, weight func(int) float64) {
	a.first[i] = first
	row := a.taps[i*a.width:][:a.width]
	var sum float64
	for k := range row {
		sum += weight(first + k)
	}
	for k := range row {
		row[k] = float32(weight(first+k) / sum)
	}
}

func (a *axis) at(i int) (int, []float32) { return a.first[i], a.taps[i*a.width:][:a.width] }

// apply filters channel c of the interleaved row src into dst and normalises it.
func (a *axis) apply(dst, src []float32, c int, mean, inv float32) {
	for x := range dst {
		first, taps := a.first[x], a.taps[x*a.width:][:a.width]
		in := src[3*first+c:]
		var sum float32
		for k, w := range taps {
			sum += w * in[3*k]
		}
		dst[x] = (sum - mean) * inv
	}
}
