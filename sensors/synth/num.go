package synth

import (
	"math"
	"math/rand/v2"
)

// The functions of math differ between architectures in the last bit; these do not. Every product is rounded by a
// conversion before it is added to, which forbids the compiler to fuse the two.

// sin is a Taylor series behind a reduction to a quarter turn; its error is below 1e-7 for arguments up to 1e4.
func sin(x float64) float64 {
	k := math.Floor(float64(x*(1/math.Pi)) + 0.5)
	x -= float64(k * math.Pi)
	if int64(k)&1 != 0 {
		x = -x
	}
	q := float64(x * x)
	p := float64(q*(-1.0/39916800)) + 1.0/362880
	p = float64(q*p) - 1.0/5040
	p = float64(q*p) + 1.0/120
	p = float64(q*p) - 1.0/6
	p = float64(q*p) + 1
	return float64(x * p)
}

func cos(x float64) float64 { return sin(x + math.Pi/2) }

// exp is a Taylor series behind a reduction by powers of two; its relative error is below 1e-9. Anything under -700 is 0.
func exp(x float64) float64 {
	if x < -700 {
		return 0
	}
	k := math.Floor(float64(x*(1/math.Ln2)) + 0.5)
	r := x - float64(k*math.Ln2)
	p := 1.0
	for n := 9.0; n >= 1; n-- {
		p = 1 + float64(float64(r*p)/n)
	}
	return math.Ldexp(p, int(k))
}

// atan2 uses the polynomial 4.4.47 of Abramowitz and Stegun; its error is below 2e-5. atan2(0, 0) is 0.
func atan2(y, x float64) float64 {
	ay, ax := math.Abs(y), math.Abs(x)
	if ax == 0 && ay == 0 {
		return 0
	}
	z := min(ax, ay) / max(ax, ay)
	q := float64(z * z)
	p := float64(q*0.0208351) - 0.0851330
	p = float64(q*p) + 0.1801410
	p = float64(q*p) - 0.3302995
	p = float64(q*p) + 0.9998660
	a := float64(z * p)
	if ay > ax {
		a = math.Pi/2 - a
	}
	if x < 0 {
		a = math.Pi - a
	}
	if y < 0 {
		return -a
	}
	return a
}

// smooth is the cubic step from 0 at t <= 0 to 1 at t >= 1.
func smooth(t float64) float64 {
	t = clamp(t, 0, 1)
	return float64(float64(t*t) * (3 - float64(2*t)))
}

func clamp[T float32 | float64 | int](v, lo, hi T) T { return max(lo, min(hi, v)) }

// wrap brings an angle into [0, period).
func wrap(a, period float64) float64 {
	a -= float64(math.Floor(a/period) * period)
	if a >= period || a < 0 { // rounding
		return 0
	}
	return a
}

// random is a seeded stream of numbers.
type random struct{ *rand.PCG }

// newRandom mixes the seeds (splitmix64's finaliser, Steele and others 2014), so that neighbours share nothing.
func newRandom(seed, stream uint64) random {
	return random{rand.NewPCG(mix(seed), mix(seed^mix(stream+1)))}
}

func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// unit is uniform in [0, 1).
func (r random) unit() float64 { return float64(r.Uint64()>>11) / (1 << 53) }

// between is uniform in [lo, hi).
func (r random) between(lo, hi float64) float64 { return lo + float64((hi-lo)*r.unit()) }

// normal is close to a normal distribution of mean 0 and deviation 1, and never beyond 3.47 (Irwin-Hall of four).
func (r random) normal() float64 {
	return float64((r.unit() + r.unit() + r.unit() + r.unit() - 2) * 1.7320508)
}

func (r random) in(v Range) float64 { return r.between(v.Min, v.Max) }

// sign is -1 or 1.
func (r random) sign() float64 { return float64(int64(r.Uint64()>>63)*2 - 1) }
