package synth

import (
	"encoding/binary"
	"math"
)

// canvas is an impression in the making. Slow functions are evaluated at nodes, cellular corners CellPixels apart, and
// interpolated: they bend so little that the error is under a tenth of a pixel.
type canvas struct {
	finger    *Finger
	t         *Transform
	contact   contact
	condition Condition
	w, h      int // pixels

	columns    int    // nodes in a row
	nodes      []node // row by row
	line       []node // one row of nodes, interpolated for the current row of pixels
	grain      []uint8
	ink, spare []float32 // 0 (none) to 1 a pixel, with a border of one pixel
}

// node is what the picture is made from at one place.
type node struct {
	x, y      float32 // master pixels
	depth     float32 // inside the contact, master pixels
	threshold float32 // of the ridge height, -1 to 1, above which skin touches
	dry       float32 // how strongly grain breaks ridges
}

func (n *node) mix(a, b *node, t float32) {
	n.x = a.x + float32((b.x-a.x)*t)
	n.y = a.y + float32((b.y-a.y)*t)
	n.depth = a.depth + float32((b.depth-a.depth)*t)
	n.threshold = a.threshold + float32((b.threshold-a.threshold)*t)
	n.dry = a.dry + float32((b.dry-a.dry)*t)
}

func (n *node) add(d *node) {
	n.x += d.x
	n.y += d.y
	n.depth += d.depth
	n.threshold += d.threshold
	n.dry += d.dry
}

// node is the slice of nodes that begins with the upper left corner of a cell.
func (c *canvas) node(column, row int) []node { return c.nodes[row*c.columns+column:] }

// layNodes evaluates the transform, the contact and the state of the skin. The centre of pixel 0 is half a pixel inside the
// first cell.
func (c *canvas) layNodes(r random) {
	c.columns = (c.w+CellPixels-1)/CellPixels + 1
	rows := (c.h+CellPixels-1)/CellPixels + 1
	c.nodes, c.line = resized(c.nodes, c.columns*rows), resized(c.line, c.columns)
	var uneven [3]wave
	for i := range uneven {
		uneven[i] = drawWave(r, r.between(0.03, 0.12), 60, 200)
	}
	wet, dry := max(0, c.condition.Moisture), max(0, -c.condition.Moisture)
	base := -float64(0.45*c.condition.Pressure) - float64(0.4*c.condition.Moisture)
	for i := range c.nodes {
		x, y := float64(i%c.columns*CellPixels)-0.5, float64(i/c.columns*CellPixels)-0.5
		mx, my := c.t.ToMaster(x, y)
		threshold, spot := base, r.normal()
		for _, w := range uneven {
			threshold += w.at(mx, my)
		}
		threshold += float64(spot * (0.05 + float64(0.16*wet) + float64(0.1*dry)))
		c.nodes[i] = node{float32(mx), float32(my), float32(c.depth(x, y, mx, my)), float32(clamp(threshold, -0.9, 0.92)),
			float32(0.25 + float64(1.6*dry) + float64(0.3*max(0, -c.condition.Pressure)))}
	}
}

// layGrain fills the grain, one random byte a pixel with a border of one.
func (c *canvas) layGrain(r random) {
	n := ((c.w+2)*(c.h+2) + 7) &^ 7
	c.grain = resized(c.grain, n)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(c.grain[i:], r.Uint64())
	}
}

// fray is the width of the edge of a contact, in master pixels, in which less and less skin touches.
const fray = 14

// press works out how much ink each pixel gets, and the mask.
func (c *canvas) press(mask *Mask) {
	stride := c.w + 2
	c.ink = resized(c.ink, stride*(c.h+2))
	c.spare = resized(c.spare, len(c.ink))
	clear(c.ink)
	clear(c.spare)
	for y := range c.h {
		up, down := c.node(0, y/CellPixels), c.node(0, y/CellPixels+1)
		t := (float32(y%CellPixels) + 0.5) / CellPixels
		for i := range c.line {
			c.line[i].mix(&up[i], &down[i], t)
		}
		c.pressRow(y, mask)
	}
}

func (c *canvas) pressRow(y int, mask *Mask) {
	stride := c.w + 2
	ink, grain := c.ink[(y+1)*stride+1:], c.grain[y*stride:(y+3)*stride]
	for x0 := 0; x0 < c.w; x0 += CellPixels {
		a, b := &c.line[x0/CellPixels], &c.line[x0/CellPixels+1]
		if a.depth < -fray && b.depth < -fray && c.condition.Residue <= 0 {
			continue
		}
		var n, step node
		n.mix(a, b, 0.5/CellPixels)
		step = node{(b.x - a.x) / CellPixels, (b.y - a.y) / CellPixels, (b.depth - a.depth) / CellPixels,
			(b.threshold - a.threshold) / CellPixels, (b.dry - a.dry) / CellPixels}
		for x := x0; x < min(x0+CellPixels, c.w); x++ {
			at := x + 1
			sum := 2*int(grain[at+stride]) + int(grain[at]) + int(grain[at+2*stride]) + int(grain[at+stride-1]) + int(grain[at+stride+1])
			ink[x] = c.touch(&n, float32(float32(sum-765)*(1.0/765)))
			if n.depth > 0 {
				mask.set(y*c.w + x)
			}
			n.add(&step)
		}
	}
}

// touch is the ink at one place; grain is -1 to 1, about 0.2 rms.
func (c *canvas) touch(n *node, grain float32) float32 {
	ink := float32(0)
	if n.depth > 0 {
		threshold := n.threshold + float32(grain*n.dry)
		fade := float32(1)
		if n.depth < fray {
			e := 1 - n.depth/fray
			threshold += float32(float32(e*e) * (1.1 + float32(grain*1.5)))
			fade = min(1, n.depth*0.5)
		}
		ink = float32(clamp(float32((c.finger.ridge(n.x, n.y)-threshold)*2.2)+0.5, 0, 1) * fade)
	}
	if c.condition.Residue > 0 {
		// what lies on the glass is another finger: the mirrored one, elsewhere
		old := c.finger.ridge(float32(c.finger.width)-n.y+40, n.x-30) + float32(grain*1.5) - 0.1
		ghost := float32(clamp(float32(old*2), 0, 1) * float32(0.22*c.condition.Residue))
		ink = max(ink, ghost)
	}
	return ink
}

// ridge is the height of the skin between -1 and 1, bilinear; -1 outside the print.
func (f *Finger) ridge(x, y float32) float32 {
	if !(x >= 0 && y >= 0 && x < float32(f.width-1) && y < float32(f.height-1)) {
		return -1
	}
	ix, iy := int(x), int(y)
	fx, fy := x-float32(ix), y-float32(iy)
	p := f.ridges[iy*f.width+ix:]
	q := p[f.width:]
	a := float32(p[0]) + float32((float32(p[1])-float32(p[0]))*fx)
	b := float32(q[0]) + float32((float32(q[1])-float32(q[0]))*fx)
	return float32((a + float32((b-a)*fy) - 128) * (1.0 / 127))
}

// depth is about how far a place lies inside the outline, in pixels.
func (f *Finger) depth(x, y float64) float64 {
	w, h := float64(float64(f.width)/2), float64(f.height)
	top, bottom := float64(h*0.44), float64(h*0.8)
	dx, dy, size := (x+0.5-w)/(w-5), 0.0, w
	switch {
	case y < top:
		dy = (top - y) / (top - 5)
	case y > bottom:
		dy, size = (y-bottom)/(h-bottom-5), h-bottom
	}
	return float64((1 - math.Sqrt(float64(dx*dx)+float64(dy*dy))) * size)
}

// cutScars takes ink away along the finger's scars and those of this impression.
func (c *canvas) cutScars(r random) {
	for _, s := range c.finger.scars {
		c.cut(s)
	}
	reach := float64(0.7 * min(c.contact.halfWidth, c.contact.halfHeight))
	for range c.condition.Scars {
		p := polar(c.t.Master, r.between(0, reach), r)
		c.cut(drawScar(r, p.X, p.Y))
	}
}

// cut draws a scar as a row of soft dots along a quadratic curve.
func (c *canvas) cut(s scar) {
	dx, dy := s.to.X-s.from.X, s.to.Y-s.from.Y
	steps := int(math.Sqrt(float64(dx*dx)+float64(dy*dy))) + 2
	for i := range steps {
		t := float64(i) / float64(steps-1)
		a, b, d := float64((1-t)*(1-t)), float64(2*float64(t*(1-t))), float64(t*t)
		mx := float64(a*s.from.X) + float64(b*s.bend.X) + float64(d*s.to.X)
		my := float64(a*s.from.Y) + float64(b*s.bend.Y) + float64(d*s.to.Y)
		thin := min(1, float64(6*min(t, 1-t))+0.3)
		x, y := c.t.ToPicture(mx, my)
		c.dab(x, y, float64(s.width*thin)/float64(2*c.t.Scale))
	}
}

// dab leaves no more ink than a soft white dot of that radius allows.
func (c *canvas) dab(x, y, radius float64) {
	reach := radius + 1
	for iy := max(0, int(math.Ceil(y-reach))); iy <= min(c.h-1, int(math.Floor(y+reach))); iy++ {
		for ix := max(0, int(math.Ceil(x-reach))); ix <= min(c.w-1, int(math.Floor(x+reach))); ix++ {
			dx, dy := float64(ix)-x, float64(iy)-y
			left := clamp(math.Sqrt(float64(dx*dx)+float64(dy*dy))-radius+0.5, 0.05, 1)
			at := (iy+1)*(c.w+2) + ix + 1
			c.ink[at] = min(c.ink[at], float32(left))
		}
	}
}

// blur spreads the ink as the optics do, by binomial passes whose variances add up.
func (c *canvas) blur() {
	variance := float64(c.condition.Blur * c.condition.Blur)
	passes := int(math.Ceil(variance * 2))
	if passes == 0 {
		return
	}
	side := float32(variance / float64(2*passes))
	middle := 1 - 2*side
	stride := c.w + 2
	for range passes {
		for y := 1; y <= c.h; y++ {
			in, out := c.ink[y*stride:(y+1)*stride], c.spare[y*stride:(y+1)*stride]
			for x := 1; x <= c.w; x++ {
				out[x] = float32(in[x]*middle) + float32((in[x-1]+in[x+1])*side)
			}
		}
		for y := 1; y <= c.h; y++ {
			up, in, down := c.spare[(y-1)*stride:y*stride], c.spare[y*stride:(y+1)*stride], c.spare[(y+1)*stride:(y+2)*stride]
			out := c.ink[y*stride : (y+1)*stride]
			for x := 1; x <= c.w; x++ {
				out[x] = float32(in[x]*middle) + float32((up[x]+down[x])*side)
			}
		}
	}
}

// expose turns ink into grey levels: background, its shading from one side to the other, contrast, noise.
func (c *canvas) expose(gray []byte, r random) {
	dir := r.between(0, 2*math.Pi)
	span := math.Sqrt(float64(c.w*c.w + c.h*c.h))
	gx, gy := float32(float64(c.condition.Shading*cos(dir))/span), float32(float64(c.condition.Shading*sin(dir))/span)
	start := float32(c.condition.Background-float64(c.condition.Shading/2)) - float32(gx*float32(c.w/2)) - float32(gy*float32(c.h/2))
	dark := float32(c.condition.Contrast * (1 - r.between(0.04, 0.16)))
	noise := float32(c.condition.Noise * (1 / 147.8)) // the deviation of a sum of four bytes is 147.8
	state := uint32(r.Uint64()) | 1
	for y := range c.h {
		ink, out := c.ink[(y+1)*(c.w+2)+1:], gray[y*c.w:(y+1)*c.w]
		row := start + float32(gy*float32(y))
		for x := range out {
			state ^= state << 13 // Marsaglia, "Xorshift RNGs", 2003
			state ^= state >> 17
			state ^= state << 5
			n := int32(state&255+state>>8&255+state>>16&255+state>>24) - 510
			level := row + float32(gx*float32(x))
			level = float32(level*(1-float32(dark*ink[x]))) + float32(float32(n)*noise)
			out[x] = uint8(clamp(level+0.5, 0, 255))
		}
	}
}
