package synth

// Neighbours of a pixel, clockwise from above; bit i of a neighbourhood is neighbour i.
var aroundX = [8]int{0, 1, 1, 1, 0, -1, -1, -1}
var aroundY = [8]int{-1, -1, 0, 1, 1, 1, 0, -1}

// crossings is Rutovitz's number: how often the ring of neighbours goes from 0 to 1. 1 is an end of a thin line, 3 a fork.
func crossings(ring uint8) int {
	n := 0
	for i := range 8 {
		n += int(^(ring>>i)&(ring>>((i+1)%8))) & 1
	}
	return n
}

// removable fills the tables of Zhang and Suen, "A fast parallel algorithm for thinning digital patterns", 1984: whether
// a pixel with this ring goes in the first and in the second sub-pass.
func removable() (tables [2][256]bool) {
	for i := range 256 {
		ring := uint8(i)
		on := func(k int) bool { return ring>>k&1 != 0 }
		count := 0
		for k := range 8 {
			count += int(ring >> k & 1)
		}
		if count < 2 || count > 6 || crossings(ring) != 1 {
			continue
		}
		north, east, south, west := on(0), on(2), on(4), on(6)
		tables[0][i] = !(north && east && south) && !(east && south && west)
		tables[1][i] = !(north && east && west) && !(north && south && west)
	}
	return tables
}

// bitmap is one byte a pixel, 0 or 1, with a border of one zero on every side.
type bitmap struct {
	w, h, stride int
	data         []uint8
	around       [8]int // offsets of the neighbours
}

func (b *bitmap) resize(w, h int) {
	b.w, b.h, b.stride = w, h, w+2
	b.data = resized(b.data, b.stride*(h+2))
	clear(b.data)
	for i := range b.around {
		b.around[i] = aroundY[i]*b.stride + aroundX[i]
	}
}

func (b *bitmap) index(x, y int) int { return (y+1)*b.stride + x + 1 }

func (b *bitmap) ring(at int) (ring uint8) {
	for i, d := range b.around {
		ring |= b.data[at+d] << i
	}
	return ring
}

// thin reduces lines to one pixel, looking again only at pixels that are left.
func (g *Generator) thin(b *bitmap) {
	live := g.live[:0]
	for at, v := range b.data {
		if v != 0 {
			live = append(live, int32(at))
		}
	}
	gone := g.gone[:0]
	for changed := true; changed; {
		changed = false
		for pass := range 2 {
			gone = gone[:0]
			for _, at := range live {
				if b.data[at] != 0 && g.removable[pass][b.ring(int(at))] {
					gone = append(gone, at)
				}
			}
			for _, at := range gone {
				b.data[at] = 0
			}
			changed = changed || len(gone) > 0
		}
		kept := live[:0]
		for _, at := range live {
			if b.data[at] != 0 {
				kept = append(kept, at)
			}
		}
		live = kept
	}
	g.live, g.gone = live, gone
	b.unstair(live)
}

// unstair takes away the inner corners of steps, which Zhang and Suen leave two pixels thick, where that breaks nothing.
func (b *bitmap) unstair(live []int32) {
	for _, at := range live {
		ring := b.ring(int(at))
		for k := 0; k < 8; k += 2 {
			corner := uint8(1)<<k | uint8(1)<<((k+2)%8)
			opposite := uint8(1)<<((k+4)%8) | uint8(1)<<((k+5)%8) | uint8(1)<<((k+6)%8)
			if ring&corner == corner && ring&opposite == 0 && crossings(ring) <= 2 {
				b.data[at] = 0
				break
			}
		}
	}
}
