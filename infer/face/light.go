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

// light looks at the luminance of the face.
func (e *examiner) light(c *Components, crop []float32) {
	bytes, counts := e.ellipse.Luminance(crop, e.size, &e.levels)
	c.histogram(counts)
	cheeks := cheeksOf(e.size)
	for _, s := range e.ellipse.List() {
		n := int(s.X1 - s.X0)
		cheeks.add(bytes[:n], int(s.X0), int(s.Y))
		bytes = bytes[n:]
	}
	if v, ok := cheeks.common(); ok {
		c.set(IlluminationUniformity, math.Pow(v, 0.3), v)
	}
}

// logs holds k times log2(k) of the counts that a histogram of a crop mostly has.
var logs = func() (t [1024]float64) {
	for k := 2; k < len(t); k++ {
		t[k] = float64(k) * math.Log2(float64(k))
	}
	return t
}()

func timesLog(k uint32) float64 {
	if int(k) < len(logs) {
		return logs[k]
	}
	return float64(k) * math.Log2(float64(k))
}

// histogram computes what follows from the histogram of luminance alone.
func (c *Components) histogram(all *[256]uint32) {
	var count, dark, bright, sum int
	for v, n := range all {
		k := int(n)
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
	total, bits := float64(count), 0.0
	for _, k := range all {
		bits += timesLog(k)
	}
	entropy := math.Log2(total) - bits/total // the sum of -p log2(p), p = k / total
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
	longestStep          = 4    // pixels of the crop
	leastSpread          = 0.01 // levels, squared: less is rounding
)

// sharpness compares the Laplacian with the spread of the green channel. scale is pixels of the frame for one of the crop.
func (e *examiner) sharpness(c *Components, crop []float32, scale float32) {
	step := 1
	if scale > 0 {
		step = max(1, min(longestStep, int(math.Round(float64(1/scale)))))
	}
	m := e.ellipse.Moments(e.green(crop), e.size, step)
	if m.Count == 0 {
		return
	}
	spread, laplacian := m.Variance()
	if !(spread*float64(e.inv*e.inv) > leastSpread) {
		c.set(Sharpness, 0, 0)
		return
	}
	v := laplacian / spread
	c.set(Sharpness, (v-sharpNone)/(sharpFull-sharpNone), v)
}
