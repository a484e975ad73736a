package synth

import (
	"cmp"
	"math"
	"slices"
)

// Minutia is one ending or fork of a ridge.
type Minutia struct {
	X float64 `json:"x"` // pixels
	Y float64 `json:"y"`
	// Angle, in [0, 2*pi), points from an ending back along its ridge, and from a fork into the valley between its legs.
	Angle float64 `json:"angle"`
	Fork  bool    `json:"fork"`
	// ID counts the minutiae of the finger from 0; an impression's carry the finger's.
	ID int `json:"id"`
}

const (
	spurPixels  = 8 // a branch shorter than this is no minutia: under one ridge period
	tracePixels = 12
	edgePixels  = 7 // minutiae closer than this to the edge of the ridges are made by the edge
)

// extract reads the minutiae off a thinned ridge map by crossing numbers. inside says whether a place may hold one, angle
// is the orientation there.
func extract(b *bitmap, inside func(x, y float64) bool, angle func(x, y float64) float64) []Minutia {
	var all []Minutia
	for y := range b.h {
		for x := range b.w {
			at := b.index(x, y)
			if b.data[at] == 0 {
				continue
			}
			n := crossings(b.ring(at))
			if n != 1 && n != 3 || !inside(float64(x), float64(y)) {
				continue
			}
			if m, ok := b.minutia(at, n == 3); ok {
				m.Angle = toward(m.Angle, angle(m.X, m.Y))
				all = append(all, m)
			}
		}
	}
	return settle(all)
}

// toward is the one of the two directions of an orientation that is closer to a rough direction.
func toward(rough, orientation float64) float64 {
	if cos(rough-orientation) < 0 {
		orientation += math.Pi
	}
	return wrap(orientation, 2*math.Pi)
}

// minutia follows the branches from a pixel of the skeleton; false means that one is too short to believe.
func (b *bitmap) minutia(at int, fork bool) (Minutia, bool) {
	x, y := at%b.stride-1, at/b.stride-1
	m := Minutia{X: float64(x), Y: float64(y), Fork: fork}
	ring := b.ring(at)
	var dx, dy [3]float64
	n := 0
	for i := range 8 {
		// one step for every run of neighbours; a straight neighbour goes before the slanted ones beside it
		if ring>>i&1 == 0 || i%2 == 1 && (ring>>((i+1)%8)&1 != 0 || ring>>((i+7)%8)&1 != 0) || n == 3 {
			continue
		}
		end, length := b.trace(at, i)
		if length < spurPixels {
			return m, false
		}
		ex, ey := float64(end%b.stride-1-x), float64(end/b.stride-1-y)
		d := math.Sqrt(float64(ex*ex)+float64(ey*ey)) + 1e-9
		dx[n], dy[n] = ex/d, ey/d
		n++
	}
	if !fork && n == 1 {
		m.Angle = atan2(-dy[0], dx[0])
		return m, true
	}
	if n != 3 {
		return m, false
	}
	// The stem is the branch that leans furthest away from both others; the valley lies opposite.
	sx, sy := dx[0]+dx[1]+dx[2], dy[0]+dy[1]+dy[2]
	stem, least := 0, math.Inf(1)
	for i := range n {
		if dot := float64(dx[i]*sx) + float64(dy[i]*sy); dot < least {
			stem, least = i, dot
		}
	}
	m.Angle = atan2(dy[stem], -dx[stem])
	return m, true
}

// trace walks along the skeleton away from a pixel, first to its neighbour dir, for tracePixels or to the end or a fork.
func (b *bitmap) trace(from, dir int) (end, length int) {
	prev, at := from, from+b.around[dir]
	for length = 1; length < tracePixels; length++ {
		next, found := 0, 0
		for straight := 0; straight < 2 && found == 0; straight++ {
			for i := straight; i < 8; i += 2 {
				if to := at + b.around[i]; b.data[to] != 0 && to != prev && to != from && !b.touches(to, prev) {
					next = to
					found++
				}
			}
		}
		if found != 1 {
			break
		}
		prev, at = at, next
	}
	return at, length
}

// touches says whether two pixels are neighbours.
func (b *bitmap) touches(p, q int) bool {
	for _, d := range b.around {
		if p+d == q {
			return true
		}
	}
	return false
}

// settle drops both of any two minutiae closer than spurPixels: breaks, bridges and holes. It sorts and numbers the rest.
func settle(all []Minutia) []Minutia {
	drop := make([]bool, len(all))
	for i, a := range all {
		for j, b := range all[:i] {
			dx, dy := a.X-b.X, a.Y-b.Y
			if float64(dx*dx)+float64(dy*dy) < spurPixels*spurPixels {
				drop[i], drop[j] = true, true
			}
		}
	}
	kept := all[:0]
	for i, m := range all {
		if !drop[i] {
			kept = append(kept, m)
		}
	}
	slices.SortFunc(kept, func(a, b Minutia) int { return cmp.Or(cmp.Compare(a.Y, b.Y), cmp.Compare(a.X, b.X)) })
	for i := range kept {
		kept[i].ID = i
	}
	return kept
}
