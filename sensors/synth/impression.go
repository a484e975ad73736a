package synth

import "math"

// Impression is one picture of a finger: 8-bit grey, ridges dark, rows without gaps.
type Impression struct {
	Gray          []byte
	Width, Height int
	DPI           float64
	Truth         Truth
}

// Impression makes one with a generator of its own. Whoever makes many keeps a Generator.
func (f *Finger) Impression(seed uint64, o ImpressionOptions) (*Impression, error) {
	var im Impression
	if err := NewGenerator().Impression(f, seed, o, &im); err != nil {
		return nil, err
	}
	return &im, nil
}

// Impression makes the impression of a seed into im, whose memory it uses again. The error is that of
// ImpressionOptions.Check; im is not touched then.
func (g *Generator) Impression(f *Finger, seed uint64, o ImpressionOptions, im *Impression) error {
	if err := o.Check(); err != nil {
		return err
	}
	r := newRandom(f.Seed, mix(seed)|impressionStream)
	c := &g.canvas
	*c = canvas{finger: f, w: o.Width, h: o.Height, nodes: c.nodes, line: c.line, grain: c.grain, ink: c.ink, spare: c.spare}
	c.t = o.transform(f, r)
	c.contact = o.contact(r)
	c.condition = o.condition(r)
	im.Width, im.Height, im.DPI = o.Width, o.Height, o.DPI
	im.Gray = resized(im.Gray, o.Width*o.Height)
	im.Truth.Mask.reset(o.Width, o.Height)
	c.layNodes(r)
	c.layGrain(r)
	c.press(&im.Truth.Mask)
	c.cutScars(r)
	c.blur()
	c.expose(im.Gray, r)
	c.tell(&im.Truth, seed)
	return nil
}

// contact is the region where skin meets the sensor: an ellipse with an uneven edge, in master pixels about its middle.
type contact struct {
	halfWidth, halfHeight float64
	amplitude, phase      [4]float64
}

func (o *ImpressionOptions) contact(r random) contact {
	var k contact
	k.halfWidth = float64(r.in(o.ContactMM) * (pixelsPerMM / 2))
	k.halfHeight = float64(k.halfWidth * r.in(o.ContactAspect))
	for i := range k.amplitude {
		k.amplitude[i], k.phase[i] = r.between(0, 0.05)/float64(i+1), r.between(0, 2*math.Pi)
	}
	return k
}

// depth is how far a place lies inside the contact, in master pixels: negative outside. x and y are from its middle, turned
// with the finger.
func (k *contact) depth(x, y float64) float64 {
	ex, ey := x/k.halfWidth, y/k.halfHeight
	edge, arg := 1.0, atan2(ey, ex)
	for i := range k.amplitude {
		edge += float64(k.amplitude[i] * sin(float64(float64(i+2)*arg)+k.phase[i]))
	}
	return float64((edge - math.Sqrt(float64(ex*ex)+float64(ey*ey))) * min(k.halfWidth, k.halfHeight))
}

// depth is how far a place of the picture lies inside both the contact and the finger's outline, in master pixels.
func (c *canvas) depth(x, y, mx, my float64) float64 {
	t := c.t
	dx, dy := float64((x-t.Picture.X)*t.Scale), float64((y-t.Picture.Y)*t.Scale)
	in := c.contact.depth(float64(dx*t.c)-float64(dy*t.s), float64(dx*t.s)+float64(dy*t.c))
	return min(in, c.finger.depth(mx, my))
}

// tell writes the truth, reusing its slices.
func (c *canvas) tell(truth *Truth, seed uint64) {
	f := c.finger
	truth.FingerSeed, truth.ImpressionSeed, truth.Class = f.Seed, seed, f.Class
	truth.Transform, truth.Condition = c.t, c.condition
	truth.Minutiae, truth.Singularities = truth.Minutiae[:0], truth.Singularities[:0]
	for _, m := range f.Minutiae {
		if x, y, ok := c.seen(m.X, m.Y, 3); ok {
			angle := c.t.angleToPicture(x, y, m.Angle)
			truth.Minutiae = append(truth.Minutiae, Minutia{X: x, Y: y, Angle: angle, Fork: m.Fork, ID: m.ID})
		}
	}
	for _, s := range f.Singularities {
		if x, y, ok := c.seen(s.X, s.Y, 0); ok {
			truth.Singularities = append(truth.Singularities, Singularity{Point{x, y}, s.Delta})
		}
	}
	c.tellOrientation(truth)
}

// seen carries a place of the master into the picture and says whether it is there, and that deep inside the contact.
func (c *canvas) seen(mx, my, depth float64) (x, y float64, ok bool) {
	x, y = c.t.ToPicture(mx, my)
	ok = x >= 0 && y >= 0 && x <= float64(c.w-1) && y <= float64(c.h-1) && c.depth(x, y, mx, my) >= depth
	return x, y, ok
}

func (c *canvas) tellOrientation(truth *Truth) {
	truth.Columns = (c.w + CellPixels - 1) / CellPixels
	rows := (c.h + CellPixels - 1) / CellPixels
	truth.Orientation = resized(truth.Orientation, truth.Columns*rows)
	for i := range truth.Orientation {
		x, y := i%truth.Columns, i/truth.Columns
		p, q := c.node(x, y), c.node(x, y+1)
		ul, ur, ll, lr := p[0], p[1], q[0], q[1]
		truth.Orientation[i] = NoRidge
		if ul.depth+ur.depth+ll.depth+lr.depth <= 0 {
			continue
		}
		mx, my := (ul.x+ur.x+ll.x+lr.x)/4, (ul.y+ur.y+ll.y+lr.y)/4
		angle := pullBack(float64(ur.x-ul.x+lr.x-ll.x), float64(ll.x-ul.x+lr.x-ur.x),
			float64(ur.y-ul.y+lr.y-ll.y), float64(ll.y-ul.y+lr.y-ur.y), c.finger.field.angle(float64(mx), float64(my)))
		truth.Orientation[i] = uint8(int(float64(angle*(180/math.Pi))+0.5) % 180)
	}
}
