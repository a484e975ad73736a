package face

import (
	"math"

	"vigil/kernels"
)

// Luminance from which a pixel is not black, and to which it is not white (OFIQ, UnderExposurePrevention.cpp and
// OverExposurePrevention.cpp).
const (
	black = 25
	white = 247
)

// linear is a level of sRGB as linear light, 0 to 255, times the channel's part of the luminance (IEC 61966-2-1; the same in OFIQ's
// image_utils.cpp). Half of it is added in the first channel, so that the sum need only be cut off.
var linear = func() (t [3][256]float32) {
	for c, weight := range [3]float64{0.2126, 0.7152, 0.0722} {
		for v := range 256 {
			x := float64(v) / 255
			if x > 0.04045 {
				x = math.Pow((x+0.055)/1.055, 2.4)
			} else {
				x /= 12.92
			}
			t[c][v] = float32(weight * x * 255)
			if c == 0 {
				t[c][v] += 0.5
			}
		}
	}
	return t
}()

// region is the part of a crop in which the face lies: an ellipse about eyes, nose and mouth, as far as the frame reached.
type region struct {
	size  int
	toSrc kernels.Affine
	w, h  float32 // of the frame
}

// The ellipse, in parts of the crop: about ArcFace's points, from the brows to the chin and between the ears.
const (
	faceX, faceY   = 0.5, 0.57
	faceRX, faceRY = 0.27, 0.35
)

// row gives the pixels x0..x1-1 of a row that belong to the face and lie in the frame.
func (r *region) row(y int) (x0, x1 int) {
	size := float64(r.size)
	dy := (float64(y) + 0.5 - faceY*size) / (faceRY * size)
	if dy <= -1 || dy >= 1 {
		return 0, 0
	}
	half := faceRX * size * math.Sqrt(1-dy*dy)
	lo, hi := faceX*size-half, faceX*size+half
	m := &r.toSrc
	lo, hi = within(lo, hi, float64(m.A), float64(m.B*float32(y)+m.TX), float64(r.w-1))
	lo, hi = within(lo, hi, float64(m.C), float64(m.D*float32(y)+m.TY), float64(r.h-1))
	return max(1, int(math.Ceil(lo))), min(r.size-1, int(math.Floor(hi))+1)
}

// within narrows lo..hi to where 0 <= a*x + b <= most.
func within(lo, hi, a, b, most float64) (float64, float64) {
	const flat = 1e-9
	if math.Abs(a) < flat {
		if b < 0 || b > most {
			return lo, lo - 1
		}
		return lo, hi
	}
	from, to := -b/a, (most-b)/a
	return max(lo, min(from, to)), min(hi, max(from, to))
}

// levels turns a normalised value back into a level of 0 to 255.
type levels struct{ std, off [3]float32 }

func levelsOf(n *kernels.Norm) (l levels) {
	for i := range 3 {
		c := i // of the tensor
		if n.BGR {
			c = 2 - i
		}
		l.std[i], l.off[i] = 1/n.InvStd[c], n.Mean[c]+0.5
	}
	return l
}

func byteOf(v, std, off float32) int { return max(0, min(255, int(v*std+off))) }

// luminance of the pixels of a row from x0 on, of planes in the order red, green, blue.
func (l *levels) luminance(dst []uint8, planes *[3][]float32, at int) {
	r, g, b := planes[0][at:][:len(dst)], planes[1][at:][:len(dst)], planes[2][at:][:len(dst)]
	for i := range dst {
		dst[i] = uint8(linear[0][byteOf(r[i], l.std[0], l.off[0])] + linear[1][byteOf(g[i], l.std[1], l.off[1])] + linear[2][byteOf(b[i], l.std[2], l.off[2])])
	}
}

func planesOf(crop []float32, size int, n *kernels.Norm) (p [3][]float32) {
	for i := range 3 {
		c := i
		if n.BGR {
			c = 2 - i
		}
		p[i] = crop[c*size*size:][:size*size]
	}
	return p
}

// light looks at the luminance of the face.
func (c *Components) light(r *region, crop []float32, n *kernels.Norm) {
	planes, l := planesOf(crop, r.size, n), levelsOf(n)
	var all [256]int
	var line [512]uint8 // the largest crop
	cheeks := cheeksOf(r.size)
	for y := range r.size {
		x0, x1 := r.row(y)
		if x0 >= x1 {
			continue
		}
		row := line[:x1-x0]
		l.luminance(row, &planes, y*r.size+x0)
		for _, v := range row {
			all[v]++
		}
		cheeks.add(row, x0, y)
	}
	c.histogram(&all)
	if v, ok := cheeks.common(); ok {
		c.set(IlluminationUniformity, math.Pow(v, 0.3), v)
	}
}

// histogram computes what follows from the histogram of luminance alone.
func (c *Components) histogram(all *[256]int) {
	var count, dark, bright, sum int
	for v, k := range all {
		count += k
		sum += v * k
		if v <= black {
			dark += k
		}
		if v >= white {
			bright += k
		}
	}
	if count == 0 {
		return
	}
	entropy := 0.0
	for _, k := range all {
		if k > 0 {
			p := float64(k) / float64(count)
			entropy -= p * math.Log2(p)
		}
	}
	total := float64(count)
	under, over, mean := float64(dark)/total, float64(bright)/total, float64(sum)/total/255
	c.set(UnderExposurePrevention, 1.2*(0.832-sigmoid(under, 0.92, 0.05)), under)
	c.set(OverExposurePrevention, 0.01/(over+0.01), over)
	c.set(LuminanceMean, sigmoid(mean, 0.2, 0.05)*(1-sigmoid(mean, 0.8, 0.05)), mean)
	c.set(DynamicRange, entropy/8, entropy)
}

// cheekBits is the width of a step of luminance in the histograms of the cheeks: 32 levels.
const cheekBits = 5

// cheeks compares two squares of the crop.
type cheeks struct {
	x      [2]int // left edges
	y      int
	side   int
	counts [2][256 >> cheekBits]int
	sum    [2]int
}

// cheeksOf places the squares (OFIQ, image_utils.cpp: CalculateRegionOfInterest) about ArcFace's points.
func cheeksOf(size int) cheeks {
	scale := float64(size) / 112
	eyes, mouth := float64(arcface[2]-arcface[0]), float64(arcface[7]+arcface[9]-arcface[1]-arcface[3])/2
	c := cheeks{side: int(0.3 * eyes * scale)}
	c.x[0] = int(float64(arcface[0])*scale) - c.side
	c.x[1] = int(float64(arcface[2]) * scale)
	c.y = int((float64(arcface[1]) + mouth/2) * scale)
	return c
}

// add counts what a row of luminance that begins at x0 holds of them.
func (c *cheeks) add(row []uint8, x0, y int) {
	if y < c.y || y >= c.y+c.side {
		return
	}
	for i := range c.x {
		lo, hi := max(0, c.x[i]-x0), min(len(row), c.x[i]+c.side-x0)
		for x := lo; x < hi; x++ {
			c.counts[i][row[x]>>cheekBits]++
			c.sum[i]++
		}
	}
}

// common is the part that both histograms have; false where one of the squares lies outside the frame for the most part.
func (c *cheeks) common() (v float64, ok bool) {
	if least := c.side * c.side / 2; c.sum[0] < least || c.sum[1] < least {
		return 0, false
	}
	for k := range c.counts[0] {
		v += min(float64(c.counts[0][k])/float64(c.sum[0]), float64(c.counts[1][k])/float64(c.sum[1]))
	}
	return v, true
}

// Bounds of Sharpness.
const (
	sharpNone, sharpFull = 0.005, 0.06
	longestStep          = 4 // pixels of the crop
)

// sharpness compares the Laplacian with the spread of the green channel.
func (c *Components) sharpness(r *region, crop []float32, n *kernels.Norm) {
	g := planesOf(crop, r.size, n)[1]
	step := 1
	if s := r.toSrc.Scale(); s > 0 {
		step = max(1, min(longestStep, int(math.Round(float64(1/s)))))
	}
	var sum, sq, lsum, lsq float64
	count := 0
	down := step * r.size
	for y := step; y < r.size-step; y++ {
		x0, x1 := r.row(y)
		x0, x1 = max(x0, step), min(x1, r.size-step)
		for i := y*r.size + x0; i < y*r.size+x1; i++ {
			v := g[i]
			l := float64(4*v - g[i-step] - g[i+step] - g[i-down] - g[i+down])
			p := float64(v)
			sum, sq, lsum, lsq = sum+p, sq+p*p, lsum+l, lsq+l*l
			count++
		}
	}
	if count == 0 {
		return
	}
	k := float64(count)
	spread := sq/k - (sum/k)*(sum/k)
	if !(spread > 0) {
		c.set(Sharpness, 0, 0)
		return
	}
	m := (lsq/k - (lsum/k)*(lsum/k)) / spread
	c.set(Sharpness, (m-sharpNone)/(sharpFull-sharpNone), m)
}
