package synth

import "math"

// Point is a place in pixels.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// Singularity is a core (a loop's turning point) or a delta of the orientation field.
type Singularity struct {
	Point
	Delta bool `json:"delta"`
}

// wave is amplitude * sin(kx*x + ky*y + phase).
type wave struct {
	Amplitude float64 `json:"amplitude"`
	KX        float64 `json:"kx"`
	KY        float64 `json:"ky"`
	Phase     float64 `json:"phase"`
}

func (w wave) at(x, y float64) float64 {
	return float64(w.Amplitude * sin(float64(w.KX*x)+float64(w.KY*y)+w.Phase))
}

// drawWave draws a wave of a length between lo and hi pixels in any direction.
func drawWave(r random, amplitude, lo, hi float64) wave {
	k, dir := 2*math.Pi/r.between(lo, hi), r.between(0, 2*math.Pi)
	return wave{amplitude, float64(k * cos(dir)), float64(k * sin(dir)), r.between(0, 2*math.Pi)}
}

// pole is a singular point with the correction of its argument: g(a) = a - bend*sin(a - axis) + sum of a_k*sin(k*a + p_k).
type pole struct {
	Singularity
	bend, axis       float64 // axis is where the legs of a core's loop go
	amplitude, phase [2]float64
}

// field is the orientation and period of the ridges everywhere, in master pixels.
type field struct {
	class     Class
	poles     []pole
	center    Point // middle of the pattern
	halfWidth float64
	arching   float64 // how far the ridges above the pattern bend with the tip of the finger
	archRise  float64 // plain arches only: steepest slope
	ripple    [3]wave
	period    float64
	periods   [3]wave
	baseWide  float64 // how much wider the ridges below the pattern are
}

// drawField draws all that the class leaves open, for a master of w by h pixels.
func drawField(r random, class Class, w, h float64, period float64) *field {
	f := &field{class: class, halfWidth: w / 2, period: period}
	f.center = Point{float64(w/2) + float64(8*r.normal()), float64(h*0.46) + float64(12*r.normal())}
	f.arching = r.between(0.35, 0.8)
	f.archRise = r.between(0.7, 1.5)
	f.baseWide = r.between(0, 0.12)
	for i := range f.ripple {
		f.ripple[i] = drawWave(r, r.between(0.01, 0.05), 170, 420)
	}
	for i := range f.periods {
		f.periods[i] = drawWave(r, r.between(0.015, 0.04), 120, 350)
	}
	f.drawPoles(r, drawSingularities(r, class, f.center))
	return f
}

// drawPoles draws the corrections. Around a core the argument turns faster over the bend of the loop than between its legs,
// which so become parallel; the plain model gives parabolas, pointed where fingers are round.
func (f *field) drawPoles(r random, all []Singularity) {
	for i, s := range all {
		p := pole{Singularity: s}
		for k := range p.amplitude {
			p.amplitude[k], p.phase[k] = r.between(0, 0.16)/float64(k+1), r.between(0, 2*math.Pi)
		}
		if p.bend = r.between(0.2, 0.45); len(all) == 2 {
			p.bend = r.between(0.5, 0.8)
		}
		if s.Delta {
			p.bend = 0
		}
		for j, other := range all {
			arg := atan2(other.Y-s.Y, s.X-other.X)
			switch {
			case j == i:
			case other.Delta:
				p.axis -= arg
			default:
				p.axis += arg
			}
		}
		f.poles = append(f.poles, p)
	}
}

// drawSingularities places cores and deltas around the middle of the pattern. The distances are those of adult fingers
// at 500 dpi: a core and a delta of a loop are some 5 to 8 mm apart.
func drawSingularities(r random, class Class, c Point) []Singularity {
	at := func(dx, dy float64, delta bool) Singularity {
		return Singularity{Point{c.X + dx, c.Y + dy}, delta}
	}
	switch class {
	case TentedArch:
		x := r.between(-10, 10)
		return []Singularity{at(x, r.between(-5, 15), false), at(x+r.between(-8, 8), r.between(60, 110), true)}
	case LeftLoop:
		return []Singularity{at(0, 0, false), at(r.between(40, 95), r.between(90, 150), true)}
	case RightLoop:
		return []Singularity{at(0, 0, false), at(r.between(-95, -40), r.between(90, 150), true)}
	case Whorl:
		lean, half := r.between(-10, 10), r.between(5, 20)
		return []Singularity{at(lean, -half, false), at(-lean, half, false),
			at(r.between(-110, -60), r.between(90, 150), true), at(r.between(60, 110), r.between(90, 150), true)}
	case DoubleLoop:
		lean, half := float64(r.sign()*r.between(22, 42)), r.between(10, 25)
		return []Singularity{at(lean, -half, false), at(-lean, half, false),
			at(r.between(-115, -65), r.between(90, 150), true), at(r.between(65, 115), r.between(90, 150), true)}
	}
	return nil
}

// angle is the orientation of the ridge at (x, y), not reduced to [0, pi).
func (f *field) angle(x, y float64) float64 {
	dx, dy := (x-f.center.X)/f.halfWidth, (y-f.center.Y)/f.halfWidth
	above := smooth(float64(-0.6*dy) + 0.6)
	a := float64(-f.arching * float64(dx*above))
	for _, w := range f.ripple {
		a += w.at(x, y)
	}
	if len(f.poles) == 0 {
		return a + f.archAngle(dx, dy)
	}
	for i := range f.poles {
		p := &f.poles[i]
		arg := p.corrected(atan2(p.Y-y, x-p.X))
		if p.Delta {
			arg = -arg
		}
		a += float64(arg * 0.5)
	}
	return a
}

// corrected is the argument after the smooth correction, which keeps the turn around the pole.
func (p *pole) corrected(arg float64) float64 {
	g := arg - float64(p.bend*sin(arg-p.axis))
	for k := range p.amplitude {
		g += float64(p.amplitude[k] * sin(float64(float64(k+1)*arg)+p.phase[k]))
	}
	return g
}

// archAngle is the slope of a plain arch: a hill whose sides are steepest a little below the middle.
func (f *field) archAngle(dx, dy float64) float64 {
	v := (dy - 0.15) / 0.75
	height := f.archRise * exp(-float64(v*v))
	return atan2(-float64(height*sin(float64(math.Pi*clamp(dx, -1, 1)))), 1)
}

// periodAt is the distance between ridges at (x, y) in pixels.
func (f *field) periodAt(x, y float64) float64 {
	dy := (y - f.center.Y) / f.halfWidth
	p := 1 + float64(f.baseWide*smooth(dy-0.2))
	for _, w := range f.periods {
		p += w.at(x, y)
	}
	return clamp(float64(f.period*p), minPeriod, maxPeriod)
}
