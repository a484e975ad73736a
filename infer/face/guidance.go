package face

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

// rule says from where on a component is spoken of: from limit on towards worst, where it could not be worse.
type rule struct {
	kind         Kind
	code         Guidance
	limit, worst float32 // of what is measured; of its absolute value for angles
}

// rules were set on every fifth picture of LFW (deep-funneled; 763 faces that are recognised well): each limit lies outside the 1st
// or the 99th percentile there, which stands beside it. These are pictures of the press, taken from near with a flash. A portrait
// for a passport asks for much more. The margins are those in which the box of the detector still lies within the frame: its edges
// are, in the median, 0.58 distances of the eyes beside the eyes and 0.62 of eyes to chin above them. On other pictures of LFW 93 % of
// the faces get no code; more than half of the others are lit from one side.
var rules = [...]rule{
	{LeftwardCropOfTheFaceImage, CentreFace, 0.55, -0.5},
	{RightwardCropOfTheFaceImage, CentreFace, 0.55, -0.5},
	{MarginAboveOfTheFaceImage, CentreFace, 0.6, 0},
	{MarginBelowOfTheFaceImage, CentreFace, 1, 0.3},
	{InterEyeDistance, ComeCloser, 28, 10},           // 36
	{UnderExposurePrevention, MoreLight, 0.75, 1.01}, // 0.64
	{LuminanceMean, MoreLight, 0.075, 0},             // 0.087
	{LuminanceMean, LessLight, 0.6, 1},               // 0.54
	{OverExposurePrevention, LessLight, 0.05, 0.5},   // 0.003
	{DynamicRange, MoreLight, 5.2, 2},                // 5.4
	{IlluminationUniformity, EvenLight, 0.03, -0.05}, // 0, and so little tells one from another that it is never the worst of two
	{HeadPoseRoll, HeadUpright, 16, 45},              // 13
	{HeadPoseYaw, LookStraight, 40, 75},              // 39
	{HeadPosePitch, LookStraight, 18, 45},            // 12
	{Sharpness, HoldStill, 0.02, 0},                  // 0.028
}

// excess is how far a component lies beyond its rule's limit: 1 is the worst, 0 the limit, less than 0 is good.
func (r *rule) excess(c *Components) float32 {
	m := c[r.kind].Measured
	switch r.kind {
	case HeadPoseYaw, HeadPosePitch, HeadPoseRoll:
		m = max(m, -m)
	}
	return (m - r.limit) / (r.worst - r.limit)
}

// Guidance says what would help most: the code of the worst component, nothing if all are good.
func (c *Components) Guidance() Guidance {
	_, code := c.Worst()
	return code
}

// Worst is the component that lies farthest beyond the limit from which it is spoken of, and its code; NoGuidance where all are
// good, and then the kind means nothing.
func (c *Components) Worst() (kind Kind, code Guidance) {
	most := float32(0)
	for i := range rules {
		r := &rules[i]
		if c[r.kind].Value == NotComputed || r.kind == IlluminationUniformity && c.turned() {
			continue
		}
		if e := r.excess(c); e > most {
			kind, code, most = r.kind, r.code, e
		}
	}
	if code == CentreFace && c.tooLarge() {
		code = StepBack
	}
	return kind, code
}

// turned reports whether the far cheek is out of sight, so that both cheeks need not be lit alike.
func (c *Components) turned() bool {
	const degrees = 20
	yaw := c[HeadPoseYaw]
	return yaw.Value != NotComputed && max(yaw.Measured, -yaw.Measured) > degrees
}

// tooLarge reports whether the face leaves the frame on two opposite sides.
func (c *Components) tooLarge() bool {
	out := func(i int) bool { return c[rules[i].kind].Value != NotComputed && rules[i].excess(c) > 0 }
	return out(0) && out(1) || out(2) && out(3)
}
