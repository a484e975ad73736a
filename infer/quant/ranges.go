package quant

import (
	"fmt"
	"math"
	"slices"
)

// Method is how a tensor's range is chosen from its histogram.
type Method string

// The methods. All but MinMax clip rare large values so that the common ones get finer steps.
const (
	// MinMax takes every value seen.
	MinMax Method = "minmax"
	// Percentile leaves out the share 1-Options.Percentile of the values, at the end where they lie farther out.
	Percentile Method = "percentile"
	// Entropy takes the range whose quantised distribution differs least from the original by Kullback-Leibler
	// divergence (Migacz, "8-bit inference with TensorRT", GTC 2017).
	Entropy Method = "entropy"
	// MSE takes the range with the least mean squared error over the histogram.
	MSE Method = "mse"
)

// Methods lists the methods.
func Methods() []Method { return []Method{MinMax, Percentile, Entropy, MSE} }

// grid is a quantiser of a whole tensor: real = scale * (q - zero), q limited to qmin..qmax.
type grid struct {
	scale      float64
	zero       int
	qmin, qmax int
}

func (g grid) low() float64  { return g.scale * float64(g.qmin-g.zero) }
func (g grid) high() float64 { return g.scale * float64(g.qmax-g.zero) }

// round is the value that x is stored as.
func (g grid) round(x float64) float64 {
	q := math.RoundToEven(x/g.scale) + float64(g.zero)
	return g.scale * (math.Min(math.Max(q, float64(g.qmin)), float64(g.qmax)) - float64(g.zero))
}

// leastScale keeps steps representable as normal float32, for tensors that are (nearly) always zero.
const leastScale = 1e-20

// asymmetric spans lo..hi, widened to hold zero, with 256 unsigned steps; zero is exact.
func asymmetric(lo, hi float64) grid {
	lo, hi = math.Min(lo, 0), math.Max(hi, 0)
	g := grid{scale: f32(math.Max((hi-lo)/255, leastScale)), qmax: 255}
	g.zero = int(math.Min(math.Max(math.RoundToEven(-lo/g.scale), 0), 255))
	return g
}

// symmetric spans -t..t with 255 signed steps around zero.
func symmetric(t float64) grid {
	return grid{scale: f32(math.Max(t/127, leastScale)), qmin: -127, qmax: 127}
}

// f32 rounds to what the file can hold.
func f32(x float64) float64 { return float64(float32(x)) }

// choose picks the quantiser of a tensor. signed asks for the symmetric one.
func (o *Options) choose(h *histogram, signed bool) (grid, error) {
	lo, hi := h.lo, h.hi
	switch o.Method {
	case MinMax:
	case Percentile:
		lo, hi = h.percentile(o.Percentile)
	case Entropy:
		t := h.entropy()
		lo, hi = math.Max(lo, -t), math.Min(hi, t)
	case MSE:
		return h.leastError(signed), nil
	default:
		return grid{}, fmt.Errorf("unknown method %q: there are %v", o.Method, Methods())
	}
	if signed {
		return symmetric(math.Max(math.Abs(lo), math.Abs(hi))), nil
	}
	return asymmetric(lo, hi), nil
}

// percentile cuts values off, those farthest from zero first, until the share left is p of all.
func (h *histogram) percentile(p float64) (lo, hi float64) {
	cut := (1 - p) * (h.total + h.zeros)
	i, j := 0, bins-1
	for i < j {
		k := &i
		if math.Abs(h.centre(j)) >= math.Abs(h.centre(i)) {
			k = &j
		}
		if cut -= h.counts[*k]; cut < 0 {
			break
		}
		if k == &i {
			i++
		} else {
			j--
		}
	}
	w := (h.hi - h.lo) / bins
	return h.lo + float64(i)*w, h.lo + float64(j+1)*w
}

// entropy is the magnitude at which to clip: of all thresholds the one with the least divergence between the clipped
// distribution and the same in 128 steps.
func (h *histogram) entropy() float64 {
	const fine, steps = 2048, 128
	counts, width := h.magnitudes(fine)
	outliers := 0.0
	best, threshold := math.Inf(1), float64(fine)
	for n := fine; n >= steps; n -= 8 {
		if n < fine {
			for _, c := range counts[n:min(n+8, fine)] {
				outliers += c
			}
		}
		if d := divergence(counts[:n], outliers, steps); d < best {
			best, threshold = d, float64(n)
		}
	}
	return threshold * width
}

// divergence is KL(P||Q) of the first bins with the outliers put into the last one, and the same in so many steps.
func divergence(counts []float64, outliers float64, steps int) float64 {
	p := slices.Clone(counts)
	p[len(p)-1] += outliers
	q := make([]float64, len(p))
	for s := range steps {
		from, to := s*len(p)/steps, (s+1)*len(p)/steps
		sum, filled := 0.0, 0.0
		for _, c := range counts[from:to] {
			sum += c
			if c > 0 {
				filled++
			}
		}
		for i := from; i < to && filled > 0; i++ {
			if counts[i] > 0 {
				q[i] = sum / filled
			}
		}
	}
	total, qTotal := 0.0, 0.0
	for i := range p {
		total += p[i]
		qTotal += q[i]
	}
	if qTotal == 0 {
		return math.Inf(1)
	}
	const least = 1e-9 // where P has values and Q has none
	d := 0.0
	for i := range p {
		if p[i] > 0 {
			d += p[i] / total * math.Log(p[i]/total/math.Max(q[i]/qTotal, least))
		}
	}
	return d
}

// leastError is the quantiser with the least squared error over the histogram: both ends are drawn in, one after the
// other, in steps of 2 %.
func (h *histogram) leastError(signed bool) grid {
	if signed {
		t := math.Max(math.Abs(h.lo), math.Abs(h.hi))
		return h.search(func(f float64) grid { return symmetric(t * f) })
	}
	lo, hi := h.lo, h.hi
	for range 2 {
		g := h.search(func(f float64) grid { return asymmetric(lo, h.hi*f) })
		hi = g.high()
		if h.lo < 0 {
			g = h.search(func(f float64) grid { return asymmetric(h.lo*f, hi) })
			lo = g.low()
		}
	}
	return asymmetric(lo, hi)
}

func (h *histogram) search(at func(f float64) grid) (best grid) {
	least := math.Inf(1)
	for f := 1.0; f > 0.2; f -= 0.02 {
		g := at(f)
		if e := h.squaredError(g); e < least {
			least, best = e, g
		}
	}
	return best
}

func (h *histogram) squaredError(g grid) (sum float64) {
	for i, c := range h.counts {
		if c > 0 {
			d := h.centre(i) - g.round(h.centre(i))
			sum += c * d * d
		}
	}
	return sum
}
