package face

import (
	"math"
	"testing"

	"vigil/kernels"
)

// plainNorm is a tensor of levels as they are.
var plainNorm = kernels.Norm{InvStd: [3]float32{1, 1, 1}}

// flat is a crop of one grey level.
func flat(size int, v float32) []float32 {
	crop := make([]float32, 3*size*size)
	for i := range crop {
		crop[i] = v
	}
	return crop
}

// upright is a face whose crop is the frame.
func upright() *Face { return &Face{Points: arcface, Landmarks: true} }

var same = kernels.Affine{A: 1, D: 1}

func TestKindsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for k := range Kinds {
		if n := k.String(); n == "" || seen[n] || k.Unit() == "" {
			t.Errorf("kind %d: name %q, unit %q", k, n, k.Unit())
		}
		seen[k.String()] = true
	}
}

// TestScalesAreThoseOfOFIQ: points of its curves, worked out by hand from the constants in its source.
func TestScalesAreThoseOfOFIQ(t *testing.T) {
	var c Components
	for _, x := range []struct {
		kind  Kind
		set   func()
		value uint8
	}{
		{InterEyeDistance, func() { c.place(geometry{eyes: 70, mouth: 70}, &Component{Value: NotComputed}, 500, 500) }, 50},
		{InterEyeDistance, func() { c.place(geometry{eyes: 110, mouth: 70}, &Component{Value: NotComputed}, 500, 500) }, 88},
		{LeftwardCropOfTheFaceImage, func() {
			c.place(geometry{eyes: 100, mouth: 70, rightX: 90, leftX: 190}, &Component{Value: NotComputed}, 500, 500)
		}, 50},
		{RightwardCropOfTheFaceImage, func() {
			c.place(geometry{eyes: 100, mouth: 70, rightX: 300, leftX: 400}, &Component{Value: NotComputed}, 500, 500)
		}, 73},
		{MarginAboveOfTheFaceImage, func() {
			c.place(geometry{eyes: 100, mouth: 100 / chinOfMouth, midY: 140}, &Component{Value: NotComputed}, 500, 500)
		}, 50},
		{MarginBelowOfTheFaceImage, func() {
			c.place(geometry{eyes: 100, mouth: 100 / chinOfMouth, midY: 320}, &Component{Value: NotComputed}, 500, 500)
		}, 50},
		{HeadPoseYaw, func() { c.angle(HeadPoseYaw, math.Pi/6) }, 75},
		{HeadPoseRoll, func() { c.angle(HeadPoseRoll, -math.Pi/4) }, 50},
		{HeadPosePitch, func() { c.angle(HeadPosePitch, 2) }, 0},
		{UnderExposurePrevention, func() { c.histogram(&[256]uint32{25: 50, 100: 50}) }, 100},
		{UnderExposurePrevention, func() { c.histogram(&[256]uint32{0: 92, 100: 8}) }, 40},
		{OverExposurePrevention, func() { c.histogram(&[256]uint32{246: 100}) }, 100},
		{OverExposurePrevention, func() { c.histogram(&[256]uint32{247: 4, 100: 96}) }, 20},
		{LuminanceMean, func() { c.histogram(&[256]uint32{51: 1}) }, 50},
		{DynamicRange, func() { c.histogram(&[256]uint32{1: 1, 2: 1, 3: 1, 4: 1}) }, 25},
	} {
		x.set()
		if c[x.kind].Value != x.value {
			t.Errorf("%s of %v: %d, want %d", x.kind, c[x.kind].Measured, c[x.kind].Value, x.value)
		}
	}
}

// head are the points of a head in three dimensions, in distances of eyes to mouth: right and left eye, nose, corners of the mouth.
var head = [5][3]float64{{-0.5, 0, 0}, {0.5, 0, 0}, {0, noseLevel, noseDepth}, {-0.4, 1, 0}, {0.4, 1, 0}}

// turnedHead gives the points of a head that is turned by these degrees, seen from far away.
func turnedHead(yaw, pitch, roll float64) (p [10]float32) {
	const rad = math.Pi / 180
	sy, cy := math.Sincos(yaw * rad)
	sp, cp := math.Sincos(pitch * rad)
	sr, cr := math.Sincos(roll * rollFollowed * rad)
	for i, q := range head {
		x, y, z := q[0]*cy+q[2]*sy, q[1], q[2]*cy-q[0]*sy
		y = y*cp + z*sp
		x, y = x*cr-y*sr, x*sr+y*cr
		p[2*i], p[2*i+1] = float32(200+40*x), float32(200+40*y)
	}
	return p
}

// TestPoseFollowsTheHead: each angle falls with its own turn, is measured right, and does not move the others.
func TestPoseFollowsTheHead(t *testing.T) {
	for k, turn := range map[Kind]func(v float64) [10]float32{
		HeadPoseYaw:   func(v float64) [10]float32 { return turnedHead(v, 0, 0) },
		HeadPosePitch: func(v float64) [10]float32 { return turnedHead(0, v, 0) },
		HeadPoseRoll:  func(v float64) [10]float32 { return turnedHead(0, 0, v) },
	} {
		for _, sign := range []float64{-1, 1} {
			worse := uint8(101)
			for _, v := range []float64{0, 10, 20, 30, 40, 50, 60} {
				p := turn(sign * v)
				var c Components
				c.pose(geometryOf(&p))
				if c[k].Value >= worse || math.Abs(float64(c[k].Measured)-sign*v) > 1.5 {
					t.Errorf("%s turned by %v: %+v, with less %d", k, sign*v, c[k], worse)
				}
				worse = c[k].Value
				for _, other := range []Kind{HeadPoseYaw, HeadPosePitch, HeadPoseRoll} {
					if other != k && math.Abs(float64(c[other].Measured)) > 1.5 {
						t.Errorf("%s turned by %v: %s is %+v", k, sign*v, other, c[other])
					}
				}
			}
		}
	}
}

// TestPoseOfNonsense: points that make no face.
func TestPoseOfNonsense(t *testing.T) {
	for name, p := range map[string][10]float32{
		"one place": {5, 5, 5, 5, 5, 5, 5, 5, 5, 5}, "mouth above": {0, 50, 40, 50, 20, 30, 5, 10, 35, 10},
		"nearly one": {5, 5, 5, 5.0000005, 5, 5, 5, 5, 5, 5},
	} {
		f := &Face{Points: p, Landmarks: true}
		c := measure(flat(112, 100), 112, &plainNorm, f, same, 112, 112)
		for k, v := range c {
			if m := float64(v.Measured); math.IsNaN(m) || math.IsInf(m, 0) || v.Value > 100 && v.Value != NotComputed {
				t.Errorf("%s: %s is %+v", name, Kind(k), v)
			}
		}
		if c[HeadPoseRoll].Value != 0 && name != "nearly one" {
			t.Errorf("%s: %+v", name, c[HeadPoseRoll])
		}
	}
}

// TestLightOfKnownPictures: levels and parts that can be counted by hand.
func TestLightOfKnownPictures(t *testing.T) {
	const size = 112
	at := func(crop []float32, f *Face, m kernels.Affine) Components {
		return measure(crop, size, &plainNorm, f, m, size, size)
	}
	c := at(flat(size, 188), upright(), same) // 188 of sRGB is half of the light
	if m := c[LuminanceMean].Measured; math.Abs(float64(m)-0.502) > 0.01 || c[DynamicRange].Measured != 0 || c[IlluminationUniformity].Value != 100 {
		t.Errorf("flat: mean %v, range %+v, uniformity %+v", m, c[DynamicRange], c[IlluminationUniformity])
	}
	half := flat(size, 250)
	for i := range half {
		if i%size >= size/2 {
			half[i] = 20
		}
	}
	c = at(half, upright(), same)
	if u := c[UnderExposurePrevention].Measured; math.Abs(float64(u)-0.5) > 0.03 || c[IlluminationUniformity].Measured != 0 {
		t.Errorf("half dark: %v under, uniformity %+v", u, c[IlluminationUniformity])
	}
	// A face of which the right half lies outside the frame: what is outside is not black, it is nothing.
	out := kernels.Affine{A: 1, D: 1, TX: size / 2}
	c = at(half, upright(), out)
	if u := c[UnderExposurePrevention]; u.Measured != 0 || c[IlluminationUniformity].Value != NotComputed {
		t.Errorf("half outside: %+v under, uniformity %+v", u, c[IlluminationUniformity])
	}
	c = at(half, upright(), kernels.Affine{A: 1, D: 1, TX: 2 * size})
	for _, k := range []Kind{UnderExposurePrevention, OverExposurePrevention, LuminanceMean, DynamicRange, IlluminationUniformity, Sharpness} {
		if c[k].Value != NotComputed {
			t.Errorf("all of it outside: %s is %+v", k, c[k])
		}
	}
	// Red, green and blue are told apart in both orders.
	rgb := flat(size, 0)
	for i := range size * size {
		rgb[i] = 255 // the first channel
	}
	bgr := plainNorm
	bgr.BGR = true
	if a, b := at(rgb, upright(), same)[LuminanceMean].Measured, measure(rgb, size, &bgr, upright(), same, size, size)[LuminanceMean].Measured; math.Abs(float64(a)-0.2126) > 0.003 || math.Abs(float64(b)-0.0722) > 0.003 {
		t.Errorf("red %v, blue %v", a, b)
	}
}

func TestGuidanceNamesTheWorst(t *testing.T) {
	good := Components{}
	for k := range good {
		good[k].Value = 100
	}
	for k, v := range map[Kind]float32{
		LuminanceMean: 0.3, DynamicRange: 7, IlluminationUniformity: 0.6, Sharpness: 0.1, InterEyeDistance: 90,
		LeftwardCropOfTheFaceImage: 2, RightwardCropOfTheFaceImage: 2, MarginAboveOfTheFaceImage: 2, MarginBelowOfTheFaceImage: 2,
	} {
		good[k].Measured = v
	}
	for _, c := range []struct {
		want  Guidance
		kind  Kind
		spoil func(*Components)
	}{
		{NoGuidance, 0, func(*Components) {}},
		{ComeCloser, InterEyeDistance, func(c *Components) { c[InterEyeDistance].Measured = 20 }},
		{CentreFace, LeftwardCropOfTheFaceImage, func(c *Components) { c[LeftwardCropOfTheFaceImage].Measured = 0.2 }},
		{CentreFace, MarginBelowOfTheFaceImage, func(c *Components) {
			c[MarginBelowOfTheFaceImage].Measured, c[RightwardCropOfTheFaceImage].Measured = 0.4, 0.5
		}},
		{StepBack, LeftwardCropOfTheFaceImage, func(c *Components) {
			c[LeftwardCropOfTheFaceImage].Measured, c[RightwardCropOfTheFaceImage].Measured = 0.2, 0.3
		}},
		{MoreLight, UnderExposurePrevention, func(c *Components) { c[UnderExposurePrevention].Measured, c[Sharpness].Measured = 0.95, 0.018 }},
		{LessLight, OverExposurePrevention, func(c *Components) { c[OverExposurePrevention].Measured = 0.3 }},
		{EvenLight, IlluminationUniformity, func(c *Components) { c[IlluminationUniformity].Measured = 0 }},
		{NoGuidance, 0, func(c *Components) { c[IlluminationUniformity].Measured, c[HeadPoseYaw].Measured = 0, -30 }},
		{HoldStill, Sharpness, func(c *Components) { c[Sharpness].Measured = 0.005 }},
		{NoGuidance, 0, func(c *Components) { c[Sharpness] = Component{Value: NotComputed} }},
		{LookStraight, HeadPoseYaw, func(c *Components) { c[HeadPoseYaw].Measured = -60 }},
		{LookStraight, HeadPosePitch, func(c *Components) { c[HeadPosePitch].Measured = 30 }},
		{HeadUpright, HeadPoseRoll, func(c *Components) { c[HeadPoseRoll].Measured = -25 }},
	} {
		x := good
		c.spoil(&x)
		if k, got := x.Worst(); got != c.want || k != c.kind || got != x.Guidance() {
			t.Errorf("%s by %s, want %q by %s", got, k, c.want, c.kind)
		}
	}
}

// BenchmarkMeasure is what the components of one face cost.
func BenchmarkMeasure(b *testing.B) {
	crop := flat(112, 0)
	for i := range crop {
		crop[i] = float32(i * 7919 % 256)
	}
	f, e := upright(), newExaminer(112, &plainNorm)
	b.ReportAllocs()
	for b.Loop() {
		e.measure(crop, f, same, 112, 112)
	}
}

// BenchmarkJudge is what the quality that decides costs.
func BenchmarkJudge(b *testing.B) {
	crop := flat(112, 90)
	f, e := upright(), newExaminer(112, &plainNorm)
	for b.Loop() {
		e.judge(crop, f)
	}
}

// measure is the components of one crop.
func measure(crop []float32, size int, n *kernels.Norm, f *Face, toSrc kernels.Affine, frameW, frameH int) Components {
	return newExaminer(size, n).measure(crop, f, toSrc, frameW, frameH)
}
