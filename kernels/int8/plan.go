package int8

// #include "int8.h"
import "C"

import (
	"fmt"
	"slices"
)

// plan says where tensors lie in an arena: two that are never needed at once may share a place.
type plan struct {
	size    int
	at      []int // of every tensor
	zeros   []zeroRow
	scratch int
}

// zeroRow is a row of pixels that are a zero point: what lies beside a picture.
type zeroRow struct {
	value    uint8
	at, size int
}

// align is the alignment of a tensor in bytes, a cache line.
const align = 64

func aligned(n int) int { return (n + align - 1) / align * align }

// gap is what lies behind every tensor, which then has a place of its own; 0 but in tests that look for what is written there.
var gap = 0

// newPlan places the tensors first fit, in the order in which they are made.
func newPlan(layers []Layer, tensors []Shape, scratch int) (plan, error) {
	p := plan{at: make([]int, len(tensors))}
	p.zeroRows(layers)
	p.scratch = p.size
	p.size += aligned(scratch)
	base := p.size

	type life struct{ tensor, first, last, at, size int }
	lives := make([]life, len(tensors))
	for t, s := range tensors {
		lives[t] = life{tensor: t, first: -1, last: -1, size: aligned(s.bytes()) + gap}
	}
	for i := range layers {
		l := &layers[i]
		if l.Kind != LookUp && lives[l.Out].first < 0 {
			lives[l.Out].first, lives[l.Out].last = i, i
		}
		if l.Kind != Quantize {
			lives[l.In].last = i
		}
		if l.Add != None {
			lives[l.Add].last = i
		}
	}
	slices.SortStableFunc(lives, func(a, b life) int { return a.first - b.first })
	for i := range lives {
		l := &lives[i]
		if l.first < 0 {
			if l.last >= 0 {
				return p, fmt.Errorf("tensor %d is read and never made", l.tensor)
			}
			continue
		}
		var taken []life
		for _, o := range lives[:i] {
			if o.first >= 0 && (o.last >= l.first || gap > 0) {
				taken = append(taken, o)
			}
		}
		slices.SortFunc(taken, func(a, b life) int { return a.at - b.at })
		l.at = base
		for _, o := range taken {
			if l.at+l.size <= o.at {
				break
			}
			l.at = max(l.at, o.at+o.size)
		}
		p.at[l.tensor] = l.at
		if p.size = max(p.size, l.at+l.size); p.size > mostBytes {
			return p, fmt.Errorf("the network needs over %d bytes of activations", mostBytes)
		}
	}
	return p, nil
}

// zeroRows makes one row a zero point, as long as the longest that needs it.
func (p *plan) zeroRows(layers []Layer) {
	for i := range layers {
		l := &layers[i]
		if l.Kind != Conv && l.Kind != Depthwise {
			continue
		}
		size := aligned(l.Shape.W*l.Shape.filled() + C.VIGIL_SLACK)
		j := slices.IndexFunc(p.zeros, func(z zeroRow) bool { return z.value == l.InZero })
		if j < 0 {
			j = len(p.zeros)
			p.zeros = append(p.zeros, zeroRow{value: l.InZero})
		}
		p.zeros[j].size = max(p.zeros[j].size, size)
	}
	for i := range p.zeros {
		p.zeros[i].at = p.size
		p.size += p.zeros[i].size
	}
}

// place gives a layer its places in the arena.
func (p *plan) place(l *Layer, c *C.vigil_layer) {
	at := func(tensor int) C.size_t { return C.size_t(p.at[tensor]) }
	c.in2, c.scratch = C.VIGIL_NONE, C.size_t(p.scratch)
	switch l.Kind {
	case Quantize:
		c.in, c.out = C.size_t(l.In), at(l.Out)
	case LookUp:
		c.in, c.out = at(l.In), C.size_t(l.Out)
	default:
		c.in, c.out = at(l.In), at(l.Out)
	}
	if l.Add != None {
		c.in2 = at(l.Add)
	}
	for _, z := range p.zeros {
		if z.value == l.InZero {
			c.zeros = C.size_t(z.at)
		}
	}
}
