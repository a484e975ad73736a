package synth

import "math"

// Transform carries places between a picture and the finger's master. It is rigid about the middle of the contact, then
// plastic: inside an ellipse the skin sticks, outside it is dragged and twisted, with a smooth brake between (Cappelli,
// Maio and Maltoni, "Modelling plastic distortion in fingerprint images", ICAPR 2001), and last a few long waves.
type Transform struct {
	Scale    float64 `json:"scale"`    // master pixels per picture pixel: 500 / dpi
	Rotation float64 `json:"rotation"` // radians the finger is turned counter-clockwise
	Picture  Point   `json:"picture"`  // middle of the contact, picture pixels
	Master   Point   `json:"master"`   // the same place on the finger, master pixels

	Stick    Point   `json:"stick"` // half axes of the ellipse that does not move, master pixels; its middle is Master
	Fade     float64 `json:"fade"`  // width of the brake as a multiple of the ellipse
	Traction Point   `json:"traction"`
	Torque   float64 `json:"torque"` // radians
	WavesX   [2]wave `json:"waves_x"`
	WavesY   [2]wave `json:"waves_y"`

	c, s   float64 // of Rotation
	tc, ts float64 // of Torque, less the identity
}

const pixelsPerMM = 500 / 25.4 // of a master

func (o *ImpressionOptions) transform(f *Finger, r random) *Transform {
	t := &Transform{Scale: 500 / o.DPI, Rotation: float64(r.in(o.RotationDegrees) * (math.Pi / 180))}
	perMM := o.DPI / 25.4
	t.Picture = polar(Point{float64(o.Width-1) / 2, float64(o.Height-1) / 2}, float64(r.in(o.ShiftMM)*perMM), r)
	t.Master = polar(Point{f.field.center.X, f.field.center.Y + 15}, float64(r.in(o.OffCentreMM)*pixelsPerMM), r)
	t.Stick = Point{r.between(50, 80), r.between(60, 95)}
	t.Fade = r.between(1.8, 2.6)
	t.Traction = polar(Point{}, float64(r.in(o.TractionMM)*pixelsPerMM), r)
	t.Torque = float64(r.in(o.TorqueDegrees) * (math.Pi / 180))
	wobble := float64(r.in(o.WobbleMM)*pixelsPerMM) / 2
	for i := range t.WavesX {
		t.WavesX[i] = drawWave(r, wobble, 140, 320)
		t.WavesY[i] = drawWave(r, wobble, 140, 320)
	}
	t.prepare()
	return t
}

// polar is the place a distance away from p in a drawn direction.
func polar(p Point, distance float64, r random) Point {
	dir := r.between(0, 2*math.Pi)
	return Point{p.X + float64(distance*cos(dir)), p.Y + float64(distance*sin(dir))}
}

// prepare works out what ToMaster needs; a Transform read from JSON has not been prepared yet.
func (t *Transform) prepare() {
	t.c, t.s = cos(t.Rotation), sin(t.Rotation)
	t.tc, t.ts = cos(t.Torque)-1, sin(t.Torque)
}

// UnmarshalJSON reads what encoding/json wrote.
func (t *Transform) UnmarshalJSON(data []byte) error {
	type plain Transform
	if err := unmarshal(data, (*plain)(t)); err != nil {
		return err
	}
	t.prepare()
	return nil
}

// ToMaster is the place on the master that is seen at (x, y) of the picture.
func (t *Transform) ToMaster(x, y float64) (mx, my float64) {
	dx, dy := float64((x-t.Picture.X)*t.Scale), float64((y-t.Picture.Y)*t.Scale)
	ux, uy := float64(dx*t.c)-float64(dy*t.s), float64(dx*t.s)+float64(dy*t.c)
	brake := t.brake(ux, uy)
	sx := t.Traction.X + float64(ux*t.tc) - float64(uy*t.ts)
	sy := t.Traction.Y + float64(ux*t.ts) + float64(uy*t.tc)
	mx = t.Master.X + ux + float64(brake*sx)
	my = t.Master.Y + uy + float64(brake*sy)
	ox, oy := 0.0, 0.0
	for i := range t.WavesX {
		ox += t.WavesX[i].at(mx, my)
		oy += t.WavesY[i].at(mx, my)
	}
	return mx + ox, my + oy
}

// brake is 0 inside the ellipse that sticks and rises to 1.
func (t *Transform) brake(ux, uy float64) float64 {
	ex, ey := ux/t.Stick.X, uy/t.Stick.Y
	d := math.Sqrt(float64(ex*ex)+float64(ey*ey)) - 1
	switch {
	case d <= 0:
		return 0
	case d >= t.Fade:
		return 1
	}
	return float64(0.5 * (1 - cos(float64(math.Pi*d)/t.Fade)))
}

// ToPicture inverts ToMaster to a hundredth of a pixel.
func (t *Transform) ToPicture(mx, my float64) (x, y float64) {
	ux, uy := mx-t.Master.X, my-t.Master.Y
	for range 60 {
		x = t.Picture.X + (float64(ux*t.c)+float64(uy*t.s))/t.Scale
		y = t.Picture.Y + (float64(uy*t.c)-float64(ux*t.s))/t.Scale
		gx, gy := t.ToMaster(x, y)
		ex, ey := mx-gx, my-gy
		if float64(ex*ex)+float64(ey*ey) < 1e-5 {
			break
		}
		ux, uy = ux+ex, uy+ey
	}
	return x, y
}

// angleToPicture carries a direction at a place of the picture from the master.
func (t *Transform) angleToPicture(x, y, angle float64) float64 {
	ax, ay := t.ToMaster(x-1, y)
	bx, by := t.ToMaster(x+1, y)
	cx, cy := t.ToMaster(x, y-1)
	dx, dy := t.ToMaster(x, y+1)
	return pullBack(bx-ax, dx-cx, by-ay, dy-cy, angle)
}

// pullBack solves [a b; c d] v = direction of angle, and gives v's direction in [0, 2*pi).
func pullBack(a, b, c, d, angle float64) float64 {
	x, y := cos(angle), -sin(angle)
	vx, vy := float64(d*x)-float64(b*y), float64(a*y)-float64(c*x)
	return wrap(atan2(-vy, vx), 2*math.Pi)
}
