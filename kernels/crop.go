package kernels

import "math"

// Rect is a rectangle of whole pixels. It may reach beyond a picture.
type Rect struct{ X, Y, W, H int }

// maxCropSide bounds a rectangle's side, so that its arithmetic cannot overflow; no picture is larger.
const maxCropSide = 1 << 20

// CropResize fills a planar float tensor [3, dstH, dstW] with a rectangle of the picture, stretched to fit. What lies
// beyond the picture is its reflection, the edge not repeated (BORDER_REFLECT_101 of OpenCV). Interpolation is bilinear
// between the nearest four pixels with half-pixel centres, as OpenCV's INTER_LINEAR; with area set, a direction that
// shrinks averages the pixels it covers, as INTER_AREA; of more than 16 it takes 8 to 16, so that a huge rectangle costs a
// bounded time. Models see the artefacts of the filter they were trained with, so this is no matter of taste. An empty
// rectangle gives zero pixels.
func CropResize(dst []float32, dstW, dstH int, im *Image, r Rect, area bool, n *Norm) {
	if len(dst) != 3*dstW*dstH {
		panic("kernels: crop into a tensor of another size")
	}
	plane := dstW * dstH
	off, pad := channelOrder(n, plane)
	if r.W <= 0 || r.H <= 0 || r.W > maxCropSide || r.H > maxCropSide {
		for c := range 3 {
			fill(dst[c*plane:(c+1)*plane], pad[c])
		}
		return
	}
	for y := range dstH {
		ys := newSpan(y, r.H, dstH, area)
		for x := range dstW {
			xs := newSpan(x, r.W, dstW, area)
			i := y*dstW + x
			for c, v := range im.average(r, xs, ys) {
				ch := off[c] / plane
				dst[off[c]+i] = (v - n.Mean[ch]) * n.InvStd[ch]
			}
		}
	}
}

// span is a run of pixels in one direction of a crop: the inner ones have weight 1, the first and the last their own.
// Weights are divided by their sum in average.
type span struct {
	from, to    int // inclusive
	skip        int // distance of those looked at, 1 or more
	first, last float32
}

// newSpan returns the pixels of 0..src-1 that output i of dst stands for.
func newSpan(i, src, dst int, area bool) span {
	step := float64(src) / float64(dst)
	if area && step > 1 {
		lo, hi := float64(i)*step, math.Min(float64(i+1)*step, float64(src))
		from, to := int(lo), min(int(math.Ceil(hi))-1, src-1)
		return span{from, to, 1 + (to-from)/(2*maxSupersample), float32(float64(from+1) - lo), float32(hi - float64(to))}
	}
	at := math.Min(math.Max((float64(i)+0.5)*step-0.5, 0), float64(src-1))
	from := int(at)
	part := float32(at - float64(from))
	return span{from, min(from+1, src-1), 1, 1 - part, part}
}

// weight of pixel p of the span.
func (s span) weight(p int) float32 {
	switch {
	case s.from == s.to && p == s.from:
		return 1
	case p == s.from:
		return s.first
	case p == s.to:
		return s.last
	}
	return 1
}

// average is the weighted mean of the pixels of two spans, in the rectangle r.
func (im *Image) average(r Rect, xs, ys span) (rgb [3]float32) {
	var sum float32
	for y := ys.from; y <= ys.to; y += ys.skip {
		wy, sy := ys.weight(y), reflect101(r.Y+y, im.Height)
		for x := xs.from; x <= xs.to; x += xs.skip {
			w := wy * xs.weight(x)
			pr, pg, pb := im.at(reflect101(r.X+x, im.Width), sy)
			rgb[0] += w * float32(pr)
			rgb[1] += w * float32(pg)
			rgb[2] += w * float32(pb)
			sum += w
		}
	}
	inv := 1 / sum
	return [3]float32{rgb[0] * inv, rgb[1] * inv, rgb[2] * inv}
}

// reflect101 folds an index into 0..n-1: gfedcb|abcdefgh|gfedcba.
func reflect101(i, n int) int {
	if uint(i) < uint(n) {
		return i
	}
	if n == 1 {
		return 0
	}
	period := 2 * (n - 1)
	if i %= period; i < 0 {
		i += period
	}
	return min(i, period-i)
}
