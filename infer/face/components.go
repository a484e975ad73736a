package face

import (
	"fmt"
	"math"

	"vigil/infer"
	"vigil/kernels"
)

// NotComputed is infer.NotComputed.
const NotComputed = infer.NotComputed

// Kind names a quality component of a face. Names, scales and constants are those of OFIQ 1.1 (github.com/BSI-OFIQ/OFIQ-Project,
// commit a16a990e), the reference implementation of ISO/IEC 29794-5, as its source and its data/ofiq_config.jaxn have them. The
// text of the standard was not at hand. OFIQ sees 98 landmarks, a mask of what covers the face, and a crop of 616 pixels; we have
// five points, no mask, and the crop that is embedded anyway. So the numbers are like OFIQ's, and not exchangeable with them.
type Kind int

// Kinds, with what Component.Measured is. "Sigmoid a, b" is 100 / (1 + exp((a-x)/b)).
const (
	// UnderExposurePrevention measures the share of the face with a luminance of 0 to 25, as OFIQ does. Value: 120 times
	// (0.832 - 1/(1+exp((0.92-x)/0.05))), limited to 100, which stays 100 until three quarters of the face are dark.
	UnderExposurePrevention Kind = iota
	// OverExposurePrevention measures the share with a luminance of 247 to 255. Value: 1/(x+0.01).
	OverExposurePrevention
	// LuminanceMean measures the mean luminance, 0 to 1. Value: sigmoid 0.2, 0.05 times 1 minus sigmoid 0.8, 0.05.
	LuminanceMean
	// DynamicRange measures the entropy of the histogram of luminance in 256 steps, in bits. Value: 12.5 times that.
	DynamicRange
	// IlluminationUniformity measures what the histograms of luminance of two squares have in common, below and outside of either
	// eye, 0.3 of the distance of the eyes wide. Value: 100 x^0.3. OFIQ's squares have ten times as many pixels, so that our
	// histograms have 8 steps instead of 256. A cheek that is turned away counts like a dark one.
	IlluminationUniformity
	// Sharpness measures the variance of the Laplacian of the green channel over the variance of that channel. Light and contrast
	// cancel out. Where a small face was enlarged for the crop the Laplacian steps as far, so that distance cancels out too, as far
	// as it can. Value: linear between sharpNone and sharpFull. OFIQ asks a random forest, which cannot be had in a few microseconds.
	Sharpness
	// InterEyeDistance measures pixels of the frame between the eyes, over the cosine of the yaw. Value: sigmoid 70, 20. OFIQ takes
	// the middles of the corners of the eyes, we the detector's eyes.
	InterEyeDistance
	// HeadPoseYaw measures degrees, positive with the nose to the right of the frame. Value: 100 cos². OFIQ fits a model of a head
	// (3DDFA-V2); see pose for what five points say.
	HeadPoseYaw
	// HeadPosePitch likewise, positive with the nose down.
	HeadPosePitch
	// HeadPoseRoll likewise, positive where the eye at the right of the frame is the lower one.
	HeadPoseRoll
	// LeftwardCropOfTheFaceImage measures how far the eye at the left is from the left border of the frame, in distances of the
	// eyes. Value: sigmoid 0.9, 0.1.
	LeftwardCropOfTheFaceImage
	// RightwardCropOfTheFaceImage is the same at the right.
	RightwardCropOfTheFaceImage
	// MarginAboveOfTheFaceImage measures how far the middle of the eyes is from the upper border, in distances of that middle to
	// the chin. Value: sigmoid 1.4, 0.1. None of our points is the chin: it is taken to lie chinOfMouth times as far as the mouth.
	MarginAboveOfTheFaceImage
	// MarginBelowOfTheFaceImage is the same at the lower border. Value: sigmoid 1.8, 0.1.
	MarginBelowOfTheFaceImage
	// Kinds is how many there are.
	Kinds
)

// described says how a kind is called, and in what unit it is measured ("1" is a ratio).
var described = [Kinds]struct{ name, unit string }{
	UnderExposurePrevention:     {"UnderExposurePrevention", "1"},
	OverExposurePrevention:      {"OverExposurePrevention", "1"},
	LuminanceMean:               {"LuminanceMean", "1"},
	DynamicRange:                {"DynamicRange", "bit"},
	IlluminationUniformity:      {"IlluminationUniformity", "1"},
	Sharpness:                   {"Sharpness", "1"},
	InterEyeDistance:            {"InterEyeDistance", "px"},
	HeadPoseYaw:                 {"HeadPoseYaw", "deg"},
	HeadPosePitch:               {"HeadPosePitch", "deg"},
	HeadPoseRoll:                {"HeadPoseRoll", "deg"},
	LeftwardCropOfTheFaceImage:  {"LeftwardCropOfTheFaceImage", "1"},
	RightwardCropOfTheFaceImage: {"RightwardCropOfTheFaceImage", "1"},
	MarginAboveOfTheFaceImage:   {"MarginAboveOfTheFaceImage", "1"},
	MarginBelowOfTheFaceImage:   {"MarginBelowOfTheFaceImage", "1"},
}

// String is the name in the standard.
func (k Kind) String() string {
	if k < 0 || k >= Kinds {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return described[k].name
}

// Unit is the unit of what is measured: "deg", "px", "bit", or "1" for a ratio.
func (k Kind) Unit() string { return described[k].unit }

// Component is infer.Component: what is measured is in the kind's unit.
type Component = infer.Component

// Components are the quality components of a face. They guide the person in front of a camera, and decide nothing.
type Components [Kinds]Component

// measure computes all of them from the aligned, normalised crop. toSrc leads from the crop to the frame, which has frameW x frameH
// pixels.
func (e *examiner) measure(crop []float32, f *Face, toSrc kernels.Affine, frameW, frameH int) Components {
	c := Components{}
	for k := range c {
		c[k].Value = NotComputed
	}
	g := geometryOf(&f.Points)
	if f.Landmarks {
		c.pose(g)
	}
	c.place(g, &c[HeadPoseYaw], frameW, frameH)
	r := region{size: e.size, toSrc: toSrc, w: float32(frameW), h: float32(frameH)}
	e.ellipse.Reset()
	for y := range e.size {
		x0, x1 := r.row(y)
		e.ellipse.Add(y, x0, x1)
	}
	e.light(&c, crop)
	e.sharpness(&c, crop, toSrc.Scale())
	return c
}

// sigmoid is the logistic function with its middle at x0: OFIQ's.
func sigmoid(x, x0, w float64) float64 { return 1 / (1 + math.Exp((x0-x)/w)) }

// farthest bounds what is measured: points that nearly coincide make anything of a ratio.
const farthest = 1e6

// set notes a component; value is 0 to 1.
func (c *Components) set(k Kind, value, measured float64) {
	c[k] = Component{Value: percent(float32(value)), Measured: float32(max(-farthest, min(farthest, measured)))}
}

// percent is v in 0..1 as 0..100.
func percent(v float32) uint8 { return uint8(math.Round(float64(clamp01(v)) * 100)) }
