package face

import (
	"math"

	"vigil/kernels"
)

// NotComputed is a component that nothing could be said about: 255, as in ISO/IEC 29794-5.
const NotComputed = 255

// Components are quality components of a face, 0 (worst) to 100 or NotComputed, with the names of ISO/IEC 29794-5:2024. The
// formulae are simpler than the standard's reference, and are given beside each; they are meant to guide a person in front of
// a camera, not to exchange scores.
type Components struct {
	// UnderExposurePrevention: 100 times the share of the face's pixels that are not black (luminance above 25), taken from
	// half of them on: below that it is 0.
	UnderExposurePrevention uint8
	// OverExposurePrevention: likewise of pixels that are not white (below 247).
	OverExposurePrevention uint8
	// DynamicRange: 12.5 times the entropy, in bits, of the histogram of the face's luminance in 256 steps.
	DynamicRange uint8
	// IlluminationUniformity: 100 times what the histograms of the left and the right half of the face have in common, in 16
	// steps of luminance.
	IlluminationUniformity uint8
	// Sharpness: Quality.Sharpness times 100.
	Sharpness uint8
	// InterEyeDistance: 100 from 90 pixels in the frame on, which the standard asks of a portrait; proportional below.
	InterEyeDistance uint8
	// HeadPoseYaw: 100 cos² of the angle that the place of the nose between the eyes stands for.
	HeadPoseYaw uint8
	// HeadPosePitch: likewise between eyes and mouth.
	HeadPosePitch uint8
	// HeadPoseRoll: 100 cos² of the angle of the line through the eyes.
	HeadPoseRoll uint8
	// FaceInFrame is the worst of the standard's four crops (leftward, rightward, upward and downward): 100 times the part of
	// the box of the face that lies within the frame.
	FaceInFrame uint8
}

// Luminance from which a pixel is not black, and to which it is not white (ISO/IEC 29794-5, exposure).
const (
	black        = 25
	white        = 247
	portraitEyes = 90 // pixels between the eyes
)

// components computes all of them. The crop is aligned and normalised; the frame is frameW x frameH pixels.
func components(crop []float32, w, h int, n *kernels.Norm, f *Face, frameW, frameH int) Components {
	c := Components{Sharpness: percent(f.Quality.Sharpness), FaceInFrame: inFrame(&f.Box, frameW, frameH)}
	c.luminance(crop, w, h, n)
	c.InterEyeDistance = percent(distance(&f.Points, 0, 1) / portraitEyes)
	c.HeadPoseYaw, c.HeadPosePitch, c.HeadPoseRoll = NotComputed, NotComputed, NotComputed
	if f.Landmarks {
		c.pose(&f.Points)
	}
	return c
}

// percent is v in 0..1 as 0..100.
func percent(v float32) uint8 { return uint8(math.Round(float64(clamp01(v)) * 100)) }

// luminance looks at the histograms of the middle of the crop (the green channel serves), where the face is.
func (c *Components) luminance(crop []float32, w, h int, n *kernels.Norm) {
	plane, std, off := crop[w*h:2*w*h], 1/n.InvStd[1], n.Mean[1]
	var all [256]int
	var half [2][16]int
	for y := h / 5; y < h*9/10; y++ {
		for x := w / 5; x < w*4/5; x++ {
			v := int(max(0, min(255, plane[y*w+x]*std+off)))
			all[v]++
			half[min(1, 2*x/w)][v/16]++
		}
	}
	var count, dark, bright int
	for v, k := range all {
		count += k
		if v <= black {
			dark += k
		}
		if v >= white {
			bright += k
		}
	}
	if count == 0 {
		return
	}
	entropy := 0.0
	for _, k := range all {
		if k > 0 {
			p := float64(k) / float64(count)
			entropy -= p * math.Log2(p)
		}
	}
	c.UnderExposurePrevention = percent(1 - 2*float32(dark)/float32(count))
	c.OverExposurePrevention = percent(1 - 2*float32(bright)/float32(count))
	c.DynamicRange = percent(float32(entropy / 8))
	var sum [2]int
	for i := range half {
		for _, k := range half[i] {
			sum[i] += k
		}
	}
	var common float32
	for v := range half[0] {
		common += min(float32(half[0][v])/float32(max(1, sum[0])), float32(half[1][v])/float32(max(1, sum[1])))
	}
	c.IlluminationUniformity = percent(common)
}

// noseOfPitch is where the nose lies between eyes (0) and mouth (1) in a frontal face: of the reference points of ArcFace's
// alignment, (71.74 - 51.60) / (92.28 - 51.60).
const noseOfPitch = 0.495

// pose estimates three angles from five points. An offset of the nose by half the distance between the eyes stands for 90
// degrees of yaw, one by half the way from eyes to mouth for 90 degrees of pitch: coarse, but steady and monotonous.
func (c *Components) pose(p *[10]float32) {
	ex, ey := p[2]-p[0], p[3]-p[1]
	eyes := float32(math.Hypot(float64(ex), float64(ey)))
	if eyes == 0 {
		c.HeadPoseYaw, c.HeadPosePitch, c.HeadPoseRoll = 0, 0, 0
		return
	}
	c.HeadPoseRoll = cosine(math.Atan2(float64(ey), float64(ex)))
	mx, my := (p[0]+p[2])/2, (p[1]+p[3])/2
	down := func(x, y float32) float32 { return ((y-my)*ex - (x-mx)*ey) / eyes } // along the face
	side := ((p[4]-mx)*ex + (p[5]-my)*ey) / eyes
	c.HeadPoseYaw = cosine(float64(side/eyes) * math.Pi)
	mouth := down((p[6]+p[8])/2, (p[7]+p[9])/2)
	if mouth <= 0 {
		c.HeadPosePitch = 0
		return
	}
	c.HeadPosePitch = cosine(float64(down(p[4], p[5])/mouth-noseOfPitch) * math.Pi)
}

// cosine is 100 cos² of an angle in radians, 0 from a right angle on.
func cosine(angle float64) uint8 {
	if math.Abs(angle) >= math.Pi/2 {
		return 0
	}
	v := math.Cos(angle)
	return percent(float32(v * v))
}

// inFrame is the part of a box that lies within the frame, 0..100.
func inFrame(b *[4]float32, w, h int) uint8 {
	if b[2] <= 0 || b[3] <= 0 {
		return 0
	}
	x := min(b[0]+b[2], float32(w)) - max(b[0], 0)
	y := min(b[1]+b[3], float32(h)) - max(b[1], 0)
	return percent(min(x/b[2], y/b[3]))
}

// Guidance is a short code of what the person at the sensor, or its owner, should do. Codes are stable: displays translate them.
type Guidance string

// Codes for faces.
const (
	NoGuidance   Guidance = ""
	ComeCloser   Guidance = "come_closer"
	StepBack     Guidance = "step_back" // the face is larger than the picture
	MoreLight    Guidance = "more_light"
	LessLight    Guidance = "less_light"
	EvenLight    Guidance = "even_light"
	HoldStill    Guidance = "hold_still"
	LookStraight Guidance = "look_straight"
	HeadUpright  Guidance = "head_upright"
	CentreFace   Guidance = "centre_face"
)

// good is the component from which nothing is said.
const good = 50

// Guidance says what would help most: the code of the worst component, nothing if all are good.
func (c *Components) Guidance() Guidance {
	inside := CentreFace
	if c.InterEyeDistance == 100 {
		inside = StepBack
	}
	worst, code := uint8(good), NoGuidance
	for _, s := range [...]struct {
		value uint8
		code  Guidance
	}{
		{c.FaceInFrame, inside}, {eyes(c.InterEyeDistance), ComeCloser}, {c.UnderExposurePrevention, MoreLight},
		{c.OverExposurePrevention, LessLight}, {c.HeadPoseRoll, HeadUpright}, {c.HeadPoseYaw, LookStraight}, {c.HeadPosePitch, LookStraight},
		{c.IlluminationUniformity, EvenLight}, {c.DynamicRange, MoreLight}, {c.Sharpness, HoldStill},
	} {
		if s.value < worst {
			worst, code = s.value, s.code
		}
	}
	return code
}

// eyes eases the standard's demand for portraits: 40 pixels between the eyes (44 of 100) are enough for recognition (eyesHigh).
func eyes(v uint8) uint8 { return uint8(min(100, int(v)*good*portraitEyes/(100*eyesHigh))) }
