package synth

import (
	"fmt"
	"math"
)

// Range is an interval to draw from, evenly; equal ends are a fixed value.
type Range struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

func (v Range) check(name string, lo, hi float64) error {
	if v.Min >= lo && v.Max <= hi && v.Min <= v.Max {
		return nil
	}
	return fmt.Errorf("cannot draw %s from %g to %g: the ends must be in order and within %g to %g", name, v.Min, v.Max, lo, hi)
}

// Options says what fingers to make. Zero values mean the defaults named here.
type Options struct {
	Class         Class   // AnyClass: by natural frequency
	Width, Height int     // pixels at 500 dpi of the whole print; 400 by 512 (20 by 26 mm), from 128 to 2048
	Period        Range   // mean ridge period in pixels at 500 dpi; 8.2 to 9.8 (0.42 to 0.5 mm), within 7 to 12
	Seeds         float64 // places where ridges begin to grow, per 1000 square pixels; 0.3; within 0.01 to 50. More give more minutiae
	Scars         Range   // permanent scars and creases; none by default, within 0 to 20
	Pores         Range   // depth of the sweat pores, 0 (none, the default) to 1
}

func (o Options) withDefaults() Options {
	if o.Width == 0 {
		o.Width = 400
	}
	if o.Height == 0 {
		o.Height = 512
	}
	if o.Period == (Range{}) {
		o.Period = Range{8.2, 9.8}
	}
	if o.Seeds == 0 {
		o.Seeds = 0.3
	}
	return o
}

// Check says what is wrong with the options, if anything.
func (o Options) Check() error {
	o = o.withDefaults()
	if o.Class >= classes {
		return fmt.Errorf("cannot make a finger of %v: the classes are %q", o.Class, classNames)
	}
	if min(o.Width, o.Height) < 128 || max(o.Width, o.Height) > 2048 {
		return fmt.Errorf("cannot make a finger of %d x %d pixels: each side is 128 to 2048", o.Width, o.Height)
	}
	if !(o.Seeds >= 0.01 && o.Seeds <= 50) {
		return fmt.Errorf("cannot grow ridges from %g seeds per 1000 pixels: take 0.01 to 50", o.Seeds)
	}
	for _, r := range []struct {
		name   string
		value  Range
		lo, hi float64
	}{{"Period", o.Period, 7, 12}, {"Scars", o.Scars, 0, 20}, {"Pores", o.Pores, 0, 1}} {
		if err := r.value.check(r.name, r.lo, r.hi); err != nil {
			return err
		}
	}
	return nil
}

// Finger is a whole print without a sensor: ridges and what is true of them. It is read-only and may be shared.
type Finger struct {
	Seed          uint64
	Class         Class
	Minutiae      []Minutia     // master pixels
	Singularities []Singularity // master pixels; a plain arch has none

	width, height int
	field         *field
	ridges        []uint8 // 1 (valley) to 255 (ridge), 0 outside the print
	scars         []scar
}

// scar is a line without ridges, in master pixels.
type scar struct {
	from, to, bend Point
	width          float64
}

// Size is the width and height of the master in pixels at 500 dpi.
func (f *Finger) Size() (width, height int) { return f.width, f.height }

// Ridge is the height of the skin at a pixel of the master: 255 on top of a ridge, 1 at the bottom of a valley, 0 outside.
func (f *Finger) Ridge(x, y int) uint8 {
	if uint(x) >= uint(f.width) || uint(y) >= uint(f.height) {
		return 0
	}
	return f.ridges[y*f.width+x]
}

// Inside says whether a place of the master is on the print.
func (f *Finger) Inside(x, y float64) bool { return f.insideMargin(x, y, 0) }

// Orientation is the direction of the ridges at a place of the master, in [0, pi).
func (f *Finger) Orientation(x, y float64) float64 { return wrap(f.field.angle(x, y), math.Pi) }

// Period is the distance between ridges at a place of the master, in pixels.
func (f *Finger) Period(x, y float64) float64 { return f.field.periodAt(x, y) }

// insideMargin says whether a place is inside the outline by at least margin pixels (outside by at most -margin): a half
// ellipse for the tip, straight sides, and a flat half ellipse at the crease of the joint.
func (f *Finger) insideMargin(x, y, margin float64) bool {
	w, h := float64(float64(f.width)/2), float64(f.height)
	top, bottom := float64(h*0.44), float64(h*0.8)
	dx, dy := math.Abs(x+0.5-w)/(w-4-margin), 0.0
	switch {
	case y < top:
		dy = (top - y) / (top - 4 - margin)
	case y > bottom:
		dy = (y - bottom) / (h - bottom - 4 - margin)
	}
	if dy >= 1 || dx >= 1 {
		return false
	}
	return float64(dx*dx)+float64(dy*dy) < 1
}

// Generator owns the scratch memory for making fingers and impressions, some megabytes. It is for one goroutine; make one
// for each. Nothing of a finger or an impression points into it.
type Generator struct {
	coarseBank, fineBank *bank
	coarse, fine, spare  plane
	kind                 []uint16
	skeleton             bitmap
	live, gone           []int32
	removable            [2][256]bool
	canvas               canvas
}

// NewGenerator makes a generator.
func NewGenerator() *Generator {
	return &Generator{coarseBank: newBank(coarseRadius, 0.5), fineBank: newBank(fineRadius, 1), removable: removable()}
}

// NewFinger makes one finger with a generator of its own. Whoever makes many keeps a Generator.
func NewFinger(seed uint64, o Options) (*Finger, error) { return NewGenerator().Finger(seed, o) }

// Streams of random numbers of one finger; impressions take those from impressionStream on.
const (
	classStream = iota
	fieldStream
	growStream
	detailStream
	impressionStream
)

// Finger makes the finger of a seed. The error is that of Options.Check.
func (g *Generator) Finger(seed uint64, o Options) (*Finger, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	f := &Finger{Seed: seed, Class: o.Class, width: o.Width, height: o.Height}
	if f.Class == AnyClass {
		f.Class = drawClass(newRandom(seed, classStream))
	}
	r := newRandom(seed, fieldStream)
	f.field = drawField(r, f.Class, float64(o.Width), float64(o.Height), r.in(o.Period))
	for _, p := range f.field.poles {
		f.Singularities = append(f.Singularities, p.Singularity)
	}
	g.grow(f, newRandom(seed, growStream), o.Seeds)
	g.keepRidges(f)
	g.findMinutiae(f)
	detail := newRandom(seed, detailStream)
	g.addPores(f, detail, detail.in(o.Pores))
	f.drawScars(detail, int(detail.in(o.Scars)+0.5))
	return f, nil
}

// keepRidges stores the grown ridges in 8 bits and thresholds them for thinning.
func (g *Generator) keepRidges(f *Finger) {
	f.ridges = make([]uint8, f.width*f.height)
	g.skeleton.resize(f.width, f.height)
	for y := range f.height {
		row := g.fine.data[g.fine.index(0, y):]
		for x := range f.width {
			if !f.Inside(float64(x), float64(y)) {
				continue
			}
			f.ridges[y*f.width+x] = uint8(128.5 + float64(127*float64(row[x])))
			if row[x] > 0 {
				g.skeleton.data[g.skeleton.index(x, y)] = 1
			}
		}
	}
}

func (g *Generator) findMinutiae(f *Finger) {
	g.thin(&g.skeleton)
	inside := func(x, y float64) bool { return f.insideMargin(x, y, edgePixels) }
	f.Minutiae = extract(&g.skeleton, inside, f.Orientation)
}

// addPores digs pores into the ridges along their skeleton, 8 to 16 pixels apart on average.
func (g *Generator) addPores(f *Finger, r random, depth float64) {
	if depth <= 0 {
		return
	}
	for y := 1; y < f.height-1; y++ {
		for x := 1; x < f.width-1; x++ {
			if g.skeleton.data[g.skeleton.index(x, y)] == 0 || r.Uint64()%12 != 0 {
				continue
			}
			for k := range 9 {
				at := (y+k/3-1)*f.width + x + k%3 - 1
				share := [9]float64{0.5, 0.7, 0.5, 0.7, 1, 0.7, 0.5, 0.7, 0.5}[k]
				f.ridges[at] = uint8(max(1, float64(f.ridges[at])*(1-float64(share*depth))))
			}
		}
	}
}

func (f *Finger) drawScars(r random, n int) {
	for range n {
		x, y := float64(f.width)*r.between(0.2, 0.8), float64(f.height)*r.between(0.2, 0.85)
		f.scars = append(f.scars, drawScar(r, x, y))
	}
}

// drawScar draws a slightly bent line through a place.
func drawScar(r random, x, y float64) scar {
	dir, half := r.between(0, math.Pi), r.between(15, 90)
	dx, dy := float64(half*cos(dir)), float64(half*sin(dir))
	bend := float64(0.12 * r.normal())
	return scar{Point{x - dx, y - dy}, Point{x + dx, y + dy}, Point{x - float64(bend*dy), y + float64(bend*dx)}, r.between(1.2, 4)}
}
