package kernels

import "math"

// Affine maps a point: x' = A*x + B*y + TX, y' = C*x + D*y + TY.
type Affine struct{ A, B, TX, C, D, TY float32 }

// Apply maps one point.
func (m Affine) Apply(x, y float32) (float32, float32) {
	return m.A*x + m.B*y + m.TX, m.C*x + m.D*y + m.TY
}

// Scale is the factor by which the map enlarges lengths (the square root of its determinant).
func (m Affine) Scale() float32 {
	return float32(math.Sqrt(math.Abs(float64(m.A*m.D - m.B*m.C))))
}

// Similarity returns the rotation, uniform scale and shift that carry the points from onto the points to with the
// least squared error: the closed form in two dimensions of S. Umeyama, "Least-Squares Estimation of Transformation
// Parameters Between Two Point Patterns", IEEE PAMI 13(4), 1991. Both hold x,y pairs and are of the same length.
// It reports false if the source points all coincide, for then no scale exists, and if one of them is no number.
func Similarity(from, to []float32) (Affine, bool) {
	if len(from) != len(to) || len(from) < 4 || len(from)%2 != 0 {
		panic("kernels: similarity needs the same number of points on both sides, two at least")
	}
	n := float64(len(from) / 2)
	var fx, fy, tx, ty float64
	for i := 0; i < len(from); i += 2 {
		fx, fy = fx+float64(from[i]), fy+float64(from[i+1])
		tx, ty = tx+float64(to[i]), ty+float64(to[i+1])
	}
	fx, fy, tx, ty = fx/n, fy/n, tx/n, ty/n
	var dot, cross, norm float64
	for i := 0; i < len(from); i += 2 {
		ax, ay := float64(from[i])-fx, float64(from[i+1])-fy
		bx, by := float64(to[i])-tx, float64(to[i+1])-ty
		dot += ax*bx + ay*by
		cross += ax*by - ay*bx
		norm += ax*ax + ay*ay
	}
	if !(norm >= 1e-9) {
		return Affine{}, false
	}
	a, b := dot/norm, cross/norm // scale*cos, scale*sin
	return Affine{
		A: float32(a), B: float32(-b), TX: float32(tx - a*fx + b*fy),
		C: float32(b), D: float32(a), TY: float32(ty - b*fx - a*fy),
	}, true
}

// Invert returns the inverse map; false if there is none.
func (m Affine) Invert() (Affine, bool) {
	det := m.A*m.D - m.B*m.C
	if det == 0 || det != det {
		return Affine{}, false
	}
	i := Affine{A: m.D / det, B: -m.B / det, C: -m.C / det, D: m.A / det}
	i.TX = -(i.A*m.TX + i.B*m.TY)
	i.TY = -(i.C*m.TX + i.D*m.TY)
	return i, true
}

// maxSupersample bounds the samples per output pixel and axis, so that a huge source face costs a bounded time.
const maxSupersample = 8

// Warp fills a planar float tensor [3, dstH, dstW] by looking up, for every tensor pixel, the source point that toSrc
// names. Interpolation is bilinear, pixels outside the picture are zero; where the map shrinks, an average over up to
// 8x8 samples a pixel avoids aliasing.
func Warp(dst []float32, dstW, dstH int, im *Image, toSrc Affine, n *Norm) {
	if len(dst) != 3*dstW*dstH {
		panic("kernels: warp into a tensor of another size")
	}
	plane := dstW * dstH
	off, _ := channelOrder(n, plane)
	k := min(max(int(math.Round(float64(toSrc.Scale()))), 1), maxSupersample)
	weight := 1 / float32(k*k)
	for y := range dstH {
		for x := range dstW {
			var r, g, b float32
			for j := range k * k {
				dx, dy := subpixel(j%k, k), subpixel(j/k, k)
				sx, sy := toSrc.Apply(float32(x)+dx, float32(y)+dy)
				pr, pg, pb := bilinear(im, sx, sy)
				r, g, b = r+pr, g+pg, b+pb
			}
			i := y*dstW + x
			for c, v := range [3]float32{r, g, b} {
				ch := off[c] / plane
				dst[off[c]+i] = (v*weight - n.Mean[ch]) * n.InvStd[ch]
			}
		}
	}
}

// subpixel is the offset of sample i of k from the centre of its pixel.
func subpixel(i, k int) float32 { return (float32(i)+0.5)/float32(k) - 0.5 }

// bilinear reads the picture at a point; outside it is black.
func bilinear(im *Image, x, y float32) (r, g, b float32) {
	if !(x > -1 && y > -1 && x < float32(im.Width) && y < float32(im.Height)) {
		return 0, 0, 0
	}
	x0, y0 := int(math.Floor(float64(x))), int(math.Floor(float64(y)))
	fx, fy := x-float32(x0), y-float32(y0)
	for j := range 4 {
		px, py := x0+j&1, y0+j>>1
		if px < 0 || py < 0 || px >= im.Width || py >= im.Height {
			continue
		}
		wx, wy := fx, fy
		if j&1 == 0 {
			wx = 1 - fx
		}
		if j>>1 == 0 {
			wy = 1 - fy
		}
		pr, pg, pb := im.at(px, py)
		w := wx * wy
		r, g, b = r+w*float32(pr), g+w*float32(pg), b+w*float32(pb)
	}
	return r, g, b
}
