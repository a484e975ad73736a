package synth

import "math"

// Ridges grow at half resolution, where filters are small, and are refined at full resolution.
const (
	orientations = 64   // kernels per half turn
	minPeriod    = 6.5  // pixels at full resolution
	maxPeriod    = 12.5 // pixels at full resolution
	periodSteps  = 13   // kernels between the two, 0.5 px apart
	coarseRadius = 5    // taps each way
	fineRadius   = 7
	pad          = 8 // pixels of zeros around every field, at least every radius
)

// bank holds one even Gabor-like kernel per orientation and period: a cosine across the ridge under a Gaussian, without a
// mean, so scaled that a plane wave of the same orientation and period passes unchanged.
type bank struct {
	radius, stride int // a row of a kernel is stride floats, the last of them zero
	kernels        [orientations * periodSteps][]float32
}

// newBank makes the kernels for a resolution, scale being its pixels per pixel at full resolution.
func newBank(radius int, scale float64) *bank {
	b := &bank{radius: radius, stride: 2*radius + 2}
	all := make([]float32, len(b.kernels)*b.stride*(2*radius+1))
	weights := make([]float64, b.stride*(2*radius+1))
	for i := range b.kernels {
		n := len(weights)
		b.kernels[i], all = all[:n:n], all[n:]
		period := minPeriod + float64((maxPeriod-minPeriod)*float64(i%periodSteps)/(periodSteps-1))
		b.fill(b.kernels[i], weights, float64(float64(i/periodSteps)*3.141592653589793/orientations), float64(period*scale))
	}
	return b
}

// fill writes one kernel; theta is the orientation of the ridge, period in pixels of this resolution.
func (b *bank) fill(kernel []float32, weights []float64, theta, period float64) {
	c, s := cos(theta), sin(theta)
	across, along := float64(0.42*period), float64(0.55*period)
	var sum, weight float64
	for j := -b.radius; j <= b.radius; j++ {
		for i := -b.radius; i <= b.radius; i++ {
			x, y := float64(i), float64(-j)
			u, v := (float64(y*c)-float64(x*s))/across, (float64(x*c)+float64(y*s))/along
			at := (j+b.radius)*b.stride + i + b.radius
			g := exp(-float64((float64(u*u) + float64(v*v)) * 0.5))
			wave := cos(float64(float64(u*across) * (6.283185307179586 / period)))
			weights[at] = g
			kernel[at] = float32(wave)
			sum += float64(g * wave)
			weight += g
		}
	}
	mean, gain := sum/weight, 0.0
	for at, g := range weights {
		wave := float64(kernel[at])
		gain += float64(float64(g*(wave-mean)) * wave)
	}
	for at, g := range weights {
		kernel[at] = float32(float64(g*(float64(kernel[at])-mean)) / gain)
	}
}

// plane is a field of w by h values with a border of pad zeros on every side.
type plane struct {
	w, h, stride int
	data         []float32
}

func (p *plane) resize(w, h int) {
	p.w, p.h, p.stride = w, h, w+2*pad
	p.data = resized(p.data, p.stride*(h+2*pad))
	clear(p.data)
}

func (p *plane) index(x, y int) int { return (y+pad)*p.stride + x + pad }

func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// respond is the answer of the kernel at one place of the plane; at is the index of the kernel's upper left tap.
func (b *bank) respond(p *plane, kernel []float32, at int) float32 {
	var s0, s1, s2, s3 float32
	for len(kernel) >= b.stride {
		k, row := kernel[:b.stride], p.data[at:at+b.stride]
		for len(k) >= 4 && len(row) >= 4 {
			s0 += float32(k[0] * row[0])
			s1 += float32(k[1] * row[1])
			s2 += float32(k[2] * row[2])
			s3 += float32(k[3] * row[3])
			k, row = k[4:], row[4:]
		}
		kernel, at = kernel[b.stride:], at+p.stride
	}
	return s0 + s1 + (s2 + s3)
}

// filter writes the clipped answer of every place inside the mask from one plane to another. kind says which kernel a
// place takes, or noKernel; step is how many places share one entry of kind in each direction.
func (b *bank) filter(to, from *plane, kind []uint16, kindWidth, step int, gain float32) {
	for y := range from.h {
		kinds := kind[(y/step)*kindWidth:]
		corner := from.index(0, y) - b.radius*from.stride - b.radius
		out := to.data[to.index(0, y):]
		for x := range from.w {
			k := kinds[x/step]
			if k == noKernel {
				continue
			}
			v := b.respond(from, b.kernels[k], corner+x)
			out[x] = clamp(float32(v*gain), -1, 1)
		}
	}
}

const noKernel = ^uint16(0)

// kinds writes which kernel each pixel at half resolution takes.
func (g *Generator) kinds(f *Finger) {
	w, h := (f.width+1)/2, (f.height+1)/2
	g.kind = resized(g.kind, w*h)
	for y := range h {
		for x := range w {
			fx, fy := float64(2*x)+0.5, float64(2*y)+0.5
			at := y*w + x
			if g.kind[at] = noKernel; !f.insideMargin(fx, fy, -4) {
				continue
			}
			o := int(float64(wrap(f.field.angle(fx, fy), 3.141592653589793)*(orientations/3.141592653589793))+0.5) % orientations
			p := int(float64((f.field.periodAt(fx, fy)-minPeriod)*((periodSteps-1)/(maxPeriod-minPeriod))) + 0.5)
			g.kind[at] = uint16(o*periodSteps + p)
		}
	}
}

const (
	growGain   = 2.5
	growExtra  = 4  // passes after all ground is covered, in which ridges straighten out
	growPasses = 90 // at most; every pass reaches some 3 pixels further at half resolution
	finePasses = 2
)

// grow makes the ridge map of a finger in g.fine: 1 on ridges, -1 in valleys.
func (g *Generator) grow(f *Finger, r random, seeds float64) {
	w, h := (f.width+1)/2, (f.height+1)/2
	g.coarse.resize(w, h)
	g.spare.resize(w, h)
	g.sow(r, 500/math.Sqrt(float64(seeds*1000)))
	g.kinds(f)
	for left := growPasses; left > 0; left-- {
		g.coarseBank.filter(&g.spare, &g.coarse, g.kind, w, 1, growGain)
		g.coarse, g.spare = g.spare, g.coarse
		if left > growExtra && g.covered() {
			left = growExtra + 1
		}
	}
	g.fine.resize(f.width, f.height)
	g.enlarge()
	g.spare.resize(f.width, f.height)
	for range finePasses {
		g.fineBank.filter(&g.spare, &g.fine, g.kind, w, 2, 1.5)
		g.fine, g.spare = g.spare, g.fine
	}
}

// sow puts one seed at random into every square of the given side, in pixels at half resolution.
func (g *Generator) sow(r random, side float64) {
	p := &g.coarse
	for y := 0.0; y < float64(p.h); y += side {
		for x := 0.0; x < float64(p.w); x += side {
			sx, sy := int(x+r.between(0, side)), int(y+r.between(0, side))
			v := float32(r.sign())
			if sx < p.w && sy < p.h {
				p.data[p.index(sx, sy)] = v
			}
		}
	}
}

// covered says whether ridges have reached all ground: no two places side by side are both grey.
func (g *Generator) covered() bool {
	p := &g.coarse
	for y := 0; y < p.h; y += 4 {
		row, kinds := p.data[p.index(0, y):], g.kind[y*p.w:(y+1)*p.w]
		grey := 0
		for x, k := range kinds {
			if v := row[x]; k == noKernel || v > 0.5 || v < -0.5 {
				grey = 0
			} else if grey++; grey > 8 {
				return false
			}
		}
	}
	return true
}

// enlarge doubles g.coarse into g.fine, linearly. A pixel of the former covers two by two of the latter.
func (g *Generator) enlarge() {
	for y := range g.fine.h {
		near := g.coarse.data[g.coarse.index(0, y/2)-1:]
		far := g.coarse.data[g.coarse.index(0, y/2-1+2*(y&1))-1:]
		out := g.fine.data[g.fine.index(0, y):]
		for x := range g.fine.w {
			n, m := x/2+1, x/2+2*(x&1)
			out[x] = float32(0.5625*near[n]) + float32(0.1875*near[m]) + float32(0.1875*far[n]) + float32(0.0625*far[m])
		}
	}
}
